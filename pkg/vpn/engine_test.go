package vpn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

var (
	dnsAddr  = netip.MustParseAddr("198.18.0.2")
	client4  = netip.MustParseAddr("198.18.0.1")
	client6  = netip.MustParseAddr("fd00::1")
	cluster4 = netip.MustParseAddrPort("10.96.0.10:80")
	cluster6 = netip.MustParseAddrPort("[fd00:10:96::10]:80")
)

// memDevice is one end of a wire for packets. A full wire drops them.
type memDevice struct {
	in, out chan []byte
	closed  chan struct{}
	once    sync.Once
}

func newWire() (a, b *memDevice) {
	x, y := make(chan []byte, 8192), make(chan []byte, 8192)
	return &memDevice{in: x, out: y, closed: make(chan struct{})}, &memDevice{in: y, out: x, closed: make(chan struct{})}
}

func (d *memDevice) Read(p []byte) (int, error) {
	select {
	case packet := <-d.in:
		return copy(p, packet), nil
	case <-d.closed:
		return 0, os.ErrClosed
	}
}

func (d *memDevice) Write(p []byte) (int, error) {
	select {
	case <-d.closed:
		return 0, os.ErrClosed
	default:
	}
	select {
	case d.out <- append([]byte(nil), p...):
	default:
	}
	return len(p), nil
}

func (d *memDevice) MTU() int { return tun.DefaultMTU }

func (d *memDevice) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// pod is a Dialer made of functions.
type pod struct {
	dial func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	ping func(ctx context.Context, addr netip.Addr, payload []byte) error
}

func (p pod) DialContext(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	return p.dial(ctx, network, addr)
}

func (p pod) Ping(ctx context.Context, addr netip.Addr, payload []byte) error {
	return p.ping(ctx, addr, payload)
}

// toLoopback is a pod that reaches, whatever the address, one server on this
// machine.
func toLoopback(server net.Addr) pod {
	return pod{dial: func(ctx context.Context, network string, _ netip.AddrPort) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.String())
	}}
}

// refusing is a pod whose every connect fails with err.
func refusing(err error) pod {
	return pod{
		dial: func(_ context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			return nil, fmt.Errorf("dialing %s %s in the pod: %w", network, addr, err)
		},
		ping: func(context.Context, netip.Addr, []byte) error { return err },
	}
}

// startEngine runs an engine until the test ends and returns the other end of
// its device.
func startEngine(t testing.TB, c Config) *memDevice {
	t.Helper()
	near, far := newWire()
	c.Device = far
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { done <- e.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return near
}

// client is a second netstack, in the place of the kernel whose packets the
// engine gets.
type client struct{ *stack.Stack }

func startClient(t testing.TB, device *memDevice) client {
	t.Helper()
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})
	l := newLink(device)
	if err := s.CreateNIC(nic, l); err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{client4, client6} {
		protocol := tcpip.ProtocolAddress{
			Protocol:          networkOf(a),
			AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
		}
		if err := s.AddProtocolAddress(nic, protocol, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	s.SetRouteTable([]tcpip.Route{{Destination: everything(4), NIC: nic}, {Destination: everything(16), NIC: nic}})
	var reader sync.WaitGroup
	reader.Go(func() { _ = l.readLoop() })
	t.Cleanup(func() {
		s.Close()
		_ = device.Close()
		reader.Wait()
		s.Wait()
	})
	return client{s}
}

func networkOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

func (c client) dialTCP(ctx context.Context, to netip.AddrPort) (*gonet.TCPConn, error) {
	return gonet.DialContextTCP(ctx, c.Stack, full(to), networkOf(to.Addr()))
}

func (c client) dialUDP(t testing.TB, to netip.AddrPort) *gonet.UDPConn {
	t.Helper()
	remote := full(to)
	conn, err := gonet.DialUDP(c.Stack, nil, &remote, networkOf(to.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// start returns a client of an engine in front of p.
func start(t testing.TB, p pod) client {
	t.Helper()
	return startClient(t, startEngine(t, Config{Dialer: p}))
}

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	_, device := newWire()
	for name, c := range map[string]Config{
		"no device":       {Dialer: pod{}},
		"no dialer":       {Device: device},
		"nobody for DNS":  {Device: device, Dialer: pod{}, DNSAddr: dnsAddr},
		"nothing at all ": {},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// failing is a device that breaks.
type failing struct {
	*memDevice
	err error
}

func (d failing) Read([]byte) (int, error) { return 0, d.err }

func TestRunEndsWithItsDevice(t *testing.T) {
	t.Parallel()
	_, far := newWire()
	e, err := New(Config{Device: failing{far, syscall.EIO}, Dialer: pod{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(patient(t)); !errors.Is(err, syscall.EIO) {
		t.Errorf("Run = %v, want EIO", err)
	}
	if _, err := far.Write(nil); !errors.Is(err, os.ErrClosed) {
		t.Error("the device is still open")
	}
}
