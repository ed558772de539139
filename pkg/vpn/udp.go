package vpn

import (
	"context"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	maxUDPFlows = 4096 // at once; datagrams of flows beyond are lost

	// udpBuffer is how many bytes of a flow's datagrams wait while the tunnel
	// opens it, or is slow. What comes beyond is lost.
	udpBuffer = 1 << 20

	maxDatagram = 65535
)

// handleUDP gets the datagrams that belong to no flow, and begins one for
// each. It is called by the one goroutine that reads the device, so that the
// second datagram of a flow finds the first one's endpoint.
func (e *Engine) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	if !reachable(id.LocalAddress) {
		return true
	}
	ctx, ok := e.begin(&e.udpFlows, maxUDPFlows)
	if !ok {
		return true
	}
	queue := new(waiter.Queue)
	ep, err := udp.NewForwarderRequest(e.stack, id, pkt.Clone()).CreateEndpoint(queue)
	if err != nil {
		e.log.Debug("udp: accepting", "to", destination(id), "error", err.String())
		e.end(&e.udpFlows)
		return true
	}
	ep.SocketOptions().SetReceiveBufferSize(udpBuffer, true)
	near, first := gonet.NewUDPConn(queue, ep), quote(pkt)
	e.flows.Go(func() {
		defer e.end(&e.udpFlows)
		defer func() { _ = near.Close() }()
		if e.isDNS(id) {
			e.serveDNSOverUDP(ctx, near)
			return
		}
		if err := e.joinUDP(ctx, near, id); err != nil {
			e.log.Debug("udp", "to", destination(id), "error", err)
			e.reject(first, verdictOf(err))
		}
	})
	return true
}

// joinUDP carries datagrams both ways until none has come for the idle time,
// or the pod got an error for one.
func (e *Engine) joinUDP(ctx context.Context, near net.Conn, id stack.TransportEndpointID) error {
	far, err := e.dialer.DialContext(ctx, "udp", destination(id))
	if err != nil {
		return err
	}
	idle := e.udpIdle
	if id.LocalPort == 53 {
		idle = min(idle, dnsIdle)
	}
	var (
		pumps  sync.WaitGroup
		active = make(chan struct{}, 1)
		broken = make(chan error, 2)
	)
	pumps.Go(func() { broken <- pumpDatagrams(near, far, active) })
	pumps.Go(func() { broken <- pumpDatagrams(far, near, active) })
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for over := false; !over; {
		select {
		case <-active:
			timer.Reset(idle)
		case <-timer.C:
			over = true
		case err = <-broken:
			over = true
		case <-ctx.Done():
			over = true
		}
	}
	_ = far.Close()
	_ = near.SetReadDeadline(time.Unix(1, 0))
	pumps.Wait()
	return err
}

// pumpDatagrams copies datagrams until either side fails, as the error says.
// It tells active of each.
func pumpDatagrams(src, dst net.Conn, active chan<- struct{}) error {
	buf := make([]byte, maxDatagram)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return err
		}
		select {
		case active <- struct{}{}:
		default:
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return err
		}
	}
}
