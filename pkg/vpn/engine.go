// Package vpn turns the packets that a network namespace sends into flows on a
// tunnel, so that every connect, datagram and ping is answered as the pod at
// the tunnel's other end would have been.
//
// It does not care how packets come to its device, nor what the tunnel is.
package vpn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

const (
	nic = 1 // the netstack's only interface

	defaultUDPIdle = 60 * time.Second
	// dnsIdle is how long a flow of DNS is kept: one question, one answer.
	dnsIdle = 10 * time.Second
)

// Config is what an engine works with. Device and Dialer must be set.
type Config struct {
	// Device is where the namespace's packets come and go. Run closes it.
	Device tun.Device
	// Dialer opens the flows.
	Dialer Dialer
	// DNS answers the queries sent to port 53 of DNSAddr, by UDP or TCP: one
	// message in, one out. It is called by many goroutines at once. An answer
	// too big for UDP is cut by the engine. An error is answered with SERVFAIL.
	DNS func(ctx context.Context, query []byte) ([]byte, error)
	// DNSAddr is where DNS is answered; without it nowhere.
	DNSAddr netip.Addr
	// Log gets what goes wrong with a single flow, at debug level.
	Log *slog.Logger
	// UDPIdle is how long a UDP flow lives without a datagram; a minute when
	// zero.
	UDPIdle time.Duration
}

// Engine answers the packets of one device. Run does all its work.
type Engine struct {
	device  tun.Device
	dialer  Dialer
	dns     func(context.Context, []byte) ([]byte, error)
	dnsAddr tcpip.Address
	log     *slog.Logger
	udpIdle time.Duration

	stack   *stack.Stack
	link    *link
	tcp     *tcp.Forwarder
	dnsSlot chan struct{}  // one for each query being answered
	flows   sync.WaitGroup // every goroutine but the one that reads the device

	mu         sync.Mutex      // guards the fields below
	run        context.Context // ends with Run: the life of every flow
	closed     bool            // no new flow
	opening    map[stack.TransportEndpointID]*stack.PacketBuffer
	handshakes map[*waiter.Queue]struct{}
	udpFlows   int
	pings      int
}

// New makes an engine; Run starts it.
func New(c Config) (*Engine, error) {
	if c.Device == nil || c.Dialer == nil {
		return nil, errors.New("an engine needs a device and a dialer")
	}
	if c.DNSAddr.IsValid() && c.DNS == nil {
		return nil, fmt.Errorf("nobody answers DNS at %s", c.DNSAddr)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.UDPIdle <= 0 {
		c.UDPIdle = defaultUDPIdle
	}
	e := &Engine{
		device:     c.Device,
		dialer:     c.Dialer,
		dns:        c.DNS,
		log:        c.Log,
		udpIdle:    c.UDPIdle,
		link:       newLink(c.Device),
		dnsSlot:    make(chan struct{}, maxQueries),
		opening:    make(map[stack.TransportEndpointID]*stack.PacketBuffer),
		handshakes: make(map[*waiter.Queue]struct{}),
	}
	if c.DNSAddr.IsValid() {
		e.dnsAddr = tcpip.AddrFromSlice(c.DNSAddr.Unmap().AsSlice())
	}
	return e, nil
}

// Run answers packets until ctx ends, when it returns nil, or until the device
// fails. It then resets what is open, closes the device, and returns when
// nothing of the engine runs any more. It must be called once.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := e.setUp(ctx); err != nil {
		_ = e.device.Close()
		return err
	}

	var reader sync.WaitGroup
	read := make(chan error, 1)
	reader.Go(func() { read <- e.link.readLoop() })
	var err error
	select {
	case <-ctx.Done():
	case err = <-read:
	}

	cancel()
	e.endFlows()
	e.stack.Close()
	closeErr := e.device.Close()
	reader.Wait()
	e.stack.Wait()
	if err != nil {
		return fmt.Errorf("reading the device: %w", err)
	}
	if closeErr != nil && !errors.Is(closeErr, os.ErrClosed) {
		return fmt.Errorf("closing the device: %w", closeErr)
	}
	return nil
}

// endFlows lets no new flow begin and waits for those there are, whose context
// has ended.
func (e *Engine) endFlows() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { e.flows.Wait(); close(done) })
	defer wait.Wait()

	// A handshake knows no context. It gives up when told to look again, and
	// may not have begun to listen yet.
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		e.mu.Lock()
		for queue := range e.handshakes {
			queue.Notify(waiter.WritableEvents)
		}
		e.mu.Unlock()
		select {
		case <-done:
			return
		case <-again.C:
		}
	}
}

// setUp makes the netstack. It claims every address, so that each packet finds
// its way to a handler of ours.
func (e *Engine) setUp(ctx context.Context) error {
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})
	e.stack = s
	e.run = ctx
	// What is refused is refused, however often it is asked for.
	s.SetICMPLimit(rate.Inf)
	if err := tuneTCP(s); err != nil {
		return err
	}
	e.tcp = tcp.NewForwarder(s, 0, 2*maxOpening, e.acceptTCP)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, e.handleTCP)
	s.SetTransportProtocolHandler(udp.ProtocolNumber, e.handleUDP)
	s.SetTransportProtocolHandler(icmp.ProtocolNumber4, e.handlePing)
	s.SetTransportProtocolHandler(icmp.ProtocolNumber6, e.handlePing)

	if err := s.CreateNIC(nic, e.link); err != nil {
		return fmt.Errorf("making the netstack's interface: %s", err)
	}
	if err := s.SetPromiscuousMode(nic, true); err != nil {
		return fmt.Errorf("accepting packets to any address: %s", err)
	}
	if err := s.SetSpoofing(nic, true); err != nil {
		return fmt.Errorf("sending packets from any address: %s", err)
	}
	v4, v6 := everything(4), everything(16)
	s.SetRouteTable([]tcpip.Route{{Destination: v4, NIC: nic}, {Destination: v6, NIC: nic}})
	return nil
}

// everything is the subnet of all addresses of that many bytes.
func everything(bytes int) tcpip.Subnet {
	zero := make([]byte, bytes)
	s, err := tcpip.NewSubnet(tcpip.AddrFromSlice(zero), tcpip.MaskFromBytes(zero))
	if err != nil {
		panic(err) // zeros are in every subnet
	}
	return s
}

// begin counts one more flow of a kind, and gives it its context, unless there
// are limit of them already or the engine is closing. Run waits for its end.
func (e *Engine) begin(kind *int, limit int) (context.Context, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || *kind >= limit {
		return nil, false
	}
	*kind++
	e.flows.Add(1)
	return e.run, true
}

// end counts one flow less.
func (e *Engine) end(kind *int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*kind--
	e.flows.Done()
}

// isDNS reports whether a flow goes to the engine's own DNS server.
func (e *Engine) isDNS(id stack.TransportEndpointID) bool {
	return e.dnsAddr.Len() > 0 && id.LocalPort == 53 && id.LocalAddress == e.dnsAddr
}

// destination is where a flow wants to go.
func destination(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(address(id.LocalAddress), id.LocalPort)
}

func address(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

// reachable reports whether a pod could have a peer of that address. An IPv4
// address of the link may be one: node-local DNS and the cloud's metadata live
// there.
func reachable(a tcpip.Address) bool {
	addr := address(a)
	return addr.IsValid() && !addr.IsMulticast() && !addr.IsUnspecified() && !addr.IsLoopback() &&
		(addr.Is4() || !addr.IsLinkLocalUnicast()) && addr != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
