package vpn

// The way of a TCP connection:
//
// 1. A SYN that belongs to no connection comes to handleTCP, which keeps it
//    and gives it to gVisor's forwarder. Copies sent meanwhile are dropped.
// 2. acceptTCP, in a goroutine of the forwarder, dials. The client waits as it
//    would wait for an answer from afar.
// 3. If the pod's connect failed, the kept SYN is answered as the pod's was.
// 4. Otherwise the handshake is made, and join copies both ways, each with its
//    own end: a half-close, or a reset, goes on to the other side.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// maxOpening is how many connections may wait for the pod's answer at
	// once. A SYN beyond is dropped, and comes again a second later.
	maxOpening = 16384

	// A copy buffer starts small, since most connections carry little, and
	// grows for those that fill it.
	smallBuffer = 4 << 10
	largeBuffer = 128 << 10
)

// tuneTCP fits the netstack's TCP to a link without loss or delay.
func tuneTCP(s *stack.Stack) error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	recovery := tcpip.TCPRecovery(0) // no RACK: packets are not reordered here
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	// A connection closed by us must not stand in the way of a new one from
	// the same port; nothing old can be on the way on this link.
	timeWait := tcpip.TCPTimeWaitTimeoutOption(100 * time.Millisecond)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &recovery, &receive, &send, &timeWait} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("setting %T of the netstack: %s", o, err)
		}
	}
	return nil
}

// handleTCP gets the segments that belong to no connection. False has the
// netstack answer with a reset.
func (e *Engine) handleTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	segment := header.TCP(pkt.TransportHeader().Slice())
	if len(segment) < header.TCPMinimumSize {
		return true
	}
	if segment.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false
	}
	if !reachable(id.LocalAddress) {
		e.reject(pkt, netUnreachable)
		return true
	}
	e.mu.Lock()
	_, again := e.opening[id]
	if again || e.closed || len(e.opening) >= maxOpening {
		e.mu.Unlock()
		return true
	}
	e.opening[id] = quote(pkt)
	e.flows.Add(1) // for acceptTCP
	e.mu.Unlock()

	if !e.tcp.HandlePacket(id, pkt) {
		e.opened(id)
		e.flows.Done()
	}
	return true
}

// opened forgets a SYN.
func (e *Engine) opened(id stack.TransportEndpointID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.opening, id)
}

// acceptTCP sees a connection through from its SYN to its end.
func (e *Engine) acceptTCP(r *tcp.ForwarderRequest) {
	defer e.flows.Done()
	id := r.ID()
	e.mu.Lock()
	ctx, syn := e.run, e.opening[id]
	e.mu.Unlock()

	if e.isDNS(id) {
		if ep, queue := e.handshake(ctx, r, id); ep != nil {
			e.serveDNSOverTCP(ctx, gonet.NewTCPConn(queue, ep))
		}
		return
	}
	dst := destination(id)
	far, err := e.dialer.DialContext(ctx, "tcp", dst)
	if err != nil {
		e.log.Debug("tcp: connecting", "to", dst, "error", err)
		v := verdictOf(err)
		r.Complete(v == refused)
		e.opened(id)
		e.reject(syn, v)
		return
	}
	ep, queue := e.handshake(ctx, r, id)
	if ep == nil {
		reset(far)
		return
	}
	join(ctx, ep, queue, far)
}

// handshake accepts the connection. The endpoint is nil if the client is gone
// or the engine closes.
func (e *Engine) handshake(ctx context.Context, r *tcp.ForwarderRequest, id stack.TransportEndpointID) (tcpip.Endpoint, *waiter.Queue) {
	queue := new(waiter.Queue)
	e.mu.Lock()
	closed := e.closed
	if !closed {
		e.handshakes[queue] = struct{}{}
	}
	e.mu.Unlock()
	if closed {
		r.Complete(true)
		e.opened(id)
		return nil, nil
	}
	ep, err := r.CreateEndpoint(queue)
	e.mu.Lock()
	delete(e.handshakes, queue)
	e.mu.Unlock()
	r.Complete(false)
	e.opened(id)
	if err != nil {
		e.log.DebugContext(ctx, "tcp: accepting", "to", destination(id), "error", err.String())
		return nil, nil
	}
	return ep, queue
}

// join copies between the client's endpoint and the flow until both
// directions have ended, or either side breaks off.
func join(ctx context.Context, ep tcpip.Endpoint, queue *waiter.Queue, far net.Conn) {
	near := gonet.NewTCPConn(queue, ep)
	gone, hup := waiter.NewChannelEntry(waiter.EventErr)
	queue.EventRegister(&gone)
	defer queue.EventUnregister(&gone)

	var pumps sync.WaitGroup
	broken := make(chan struct{}, 2)
	done := make(chan struct{})
	pumps.Go(func() {
		if pump(near, far, func() { closeWrite(far) }) != nil {
			broken <- struct{}{}
		}
	})
	pumps.Go(func() {
		if pump(far, near, func() { _ = near.CloseWrite() }) != nil {
			broken <- struct{}{}
		}
	})
	var both sync.WaitGroup
	both.Go(func() { pumps.Wait(); close(done) })

	graceful := false
	for over := false; !over; {
		select {
		case <-done:
			// Both ended: well, if neither said otherwise.
			graceful, over = len(broken) == 0, true
		case <-broken:
			over = true
		case <-ctx.Done():
			over = true
		case <-hup:
			state := tcp.EndpointState(ep.State())
			over = state == tcp.StateError || state == tcp.StateClose && ep.LastError() != nil
		}
	}
	if graceful {
		_ = far.Close()
	} else {
		ep.Abort()
		reset(far)
	}
	both.Wait()
	ep.Close()
}

// pump copies from src to dst until src ends, and passes the end on. It
// returns an error if either broke.
func pump(src io.Reader, dst io.Writer, end func()) error {
	buf := make([]byte, smallBuffer)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			end()
			return nil
		}
		if err != nil {
			return err
		}
		if n == len(buf) && n < largeBuffer {
			buf = make([]byte, 2*n)
		}
	}
}
