package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// backlog is how many connections wait for Accept before callers are refused.
const backlog = 512

// listener is a listening socket in the pod.
type listener struct {
	c      *Client
	number uint32
	ch     ssh.Channel
	addr   net.Addr
	queue  chan offer
	closed chan struct{} // the socket is gone
	once   sync.Once
}

// offer is a connection that the pod accepted.
type offer struct {
	nc            ssh.NewChannel
	flow          uint32
	local, remote netip.AddrPort
}

// Listen listens on a TCP address in the pod; port 0 lets the pod choose. Accept returns a *Conn, whose addresses are
// those that the pod sees. Errors are those of the pod's bind, such as EADDRINUSE and EACCES. Connections that wait
// unaccepted when the Listener is closed are refused.
func (c *Client) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	l := &listener{
		c:      c,
		number: c.numbers.Add(1),
		queue:  make(chan offer, backlog),
		closed: make(chan struct{}),
	}
	c.setListener(l.number, l) // before the pod can accept anything
	ch, reqs, err := c.open(ctx, channelListen, ssh.Marshal(openListen{Listener: l.number, Addr: addr.String()}), 0)
	if err == nil && !c.tasks.start(func() {
		ssh.DiscardRequests(reqs)
		close(l.closed)
	}) {
		err = net.ErrClosed
	}
	var bound netip.AddrPort
	if err == nil {
		bound, err = readBound(ch)
	}
	if err != nil {
		c.setListener(l.number, nil)
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: err}
	}
	l.ch, l.addr = ch, net.TCPAddrFromAddrPort(bound)
	return l, nil
}

// readBound reads the first line of a listening socket's channel, byte by byte: what follows is somebody else's.
func readBound(ch ssh.Channel) (netip.AddrPort, error) {
	var line strings.Builder
	var b [1]byte
	for {
		if _, err := ch.Read(b[:]); err != nil {
			_ = ch.Close() // err is the one that counts
			return netip.AddrPort{}, noEOF(err)
		}
		if b[0] == '\n' {
			return netip.ParseAddrPort(line.String())
		}
		line.WriteByte(b[0])
	}
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	for {
		select {
		case o := <-l.queue:
			ch, reqs, err := o.nc.Accept()
			if err != nil {
				continue // the pod's caller, or the tunnel, has gone meanwhile
			}
			flow := newBond(&l.c.tunnel, ch, o.flow)
			return newConn(&l.c.tunnel, flow, reqs, "tcp", net.TCPAddrFromAddrPort(o.local), net.TCPAddrFromAddrPort(o.remote)), nil
		case <-l.closed:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
		}
	}
}

// Close closes the pod's socket, and waits for that.
func (l *listener) Close() error {
	l.once.Do(func() {
		_ = l.ch.Close() // fails when the agent was first
		<-l.closed
		l.c.setListener(l.number, nil)
		for {
			select {
			case o := <-l.queue:
				refuse(o.nc, syscall.ECONNREFUSED)
			default:
				return
			}
		}
	})
	return nil
}

// Addr returns the address in the pod.
func (l *listener) Addr() net.Addr { return l.addr }

// accept is the client's end of a connection the pod accepted.
func (c *Client) accept(nc ssh.NewChannel) {
	var p openAccept
	err := ssh.Unmarshal(nc.ExtraData(), &p)
	o := offer{nc: nc, flow: p.Flow}
	if err == nil {
		o.local, err = netip.ParseAddrPort(p.Local)
	}
	if err == nil {
		o.remote, err = netip.ParseAddrPort(p.Remote)
	}
	if err != nil {
		refuse(nc, err)
		return
	}
	c.listenersMu.Lock() // held so that Close finds everything in the queue
	defer c.listenersMu.Unlock()
	l := c.listeners[p.Listener]
	if l == nil {
		refuse(nc, syscall.ECONNREFUSED)
		return
	}
	select {
	case l.queue <- o:
	default:
		refuse(nc, syscall.ECONNREFUSED)
	}
}

// setListener makes l the listener of that number, or forgets it if nil.
func (c *Client) setListener(number uint32, l *listener) {
	c.listenersMu.Lock()
	defer c.listenersMu.Unlock()
	if l == nil {
		delete(c.listeners, number)
	} else {
		c.listeners[number] = l
	}
}

// openListen is the agent's end of Listen.
func (s *session) openListen(ctx context.Context, nc ssh.NewChannel) {
	p, addr, err := parseListen(nc)
	if err != nil {
		refuse(nc, err)
		return
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		refuse(nc, err)
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		_ = l.Close() // err is the one that counts
		return
	}
	var wg sync.WaitGroup
	k := &socket{l: l, ended: make(chan struct{})}
	wg.Go(func() {
		ssh.DiscardRequests(reqs)
		k.end() // ends the loop below
	})
	if _, err := ch.Write([]byte(l.Addr().String() + "\n")); err == nil {
		s.acceptPresent(ctx, k, p.Listener)
	}
	_ = ch.Close() // fails when the client was first
	wg.Wait()
}

func parseListen(nc ssh.NewChannel) (openListen, netip.AddrPort, error) {
	var p openListen
	if err := ssh.Unmarshal(nc.ExtraData(), &p); err != nil {
		return p, netip.AddrPort{}, err
	}
	addr, err := netip.ParseAddrPort(p.Addr)
	return p, addr, err
}

// acceptAll offers each connection that l accepts to the client.
func (s *session) acceptAll(l net.Listener, number uint32) {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			if !s.tasks.start(func() { s.offer(conn, number) }) {
				_ = conn.Close() // the session is over
			}
		case errors.Is(err, syscall.ECONNABORTED):
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
			timer := time.NewTimer(50 * time.Millisecond) // until another flow has ended
			<-timer.C
		default:
			return
		}
	}
}

// offer opens a channel for conn to the client. The caller is reset if the client refuses.
func (s *session) offer(conn net.Conn, number uint32) {
	sock, ok := conn.(*net.TCPConn)
	if !ok {
		_ = conn.Close() // can't be: l is a TCP listener
		return
	}
	away, _ := s.presence.now()
	stop := when(away, func() { // it would wait for the client
		_ = sock.SetLinger(0) // fails only on a closed socket
		_ = sock.Close()
	})
	flow := acceptedFlow | s.numbers.Add(1)
	ch, reqs, err := s.conn.OpenChannel(channelAccept, ssh.Marshal(openAccept{
		Listener: number,
		Flow:     flow,
		Local:    unmapped(sock.LocalAddr()).String(),
		Remote:   unmapped(sock.RemoteAddr()).String(),
	}))
	reset := stop()
	if err != nil {
		_ = sock.SetLinger(0) // fails only on a closed socket
		_ = sock.Close()
		return
	}
	if reset {
		_ = ch.Close() // the client was away too long for this caller; fails only when the tunnel is gone
		ssh.DiscardRequests(reqs)
		return
	}
	(&relay{t: &s.tunnel, ch: newBond(&s.tunnel, ch, flow), sock: sock}).run(reqs)
}

// unmapped is a TCP or UDP address without IPv4-in-IPv6.
func unmapped(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
