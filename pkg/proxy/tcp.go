package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/crypto/ssh"
)

// DialContext connects from the pod to addr; network is "tcp" or "udp". The error is a *net.OpError with the pod's
// errno in it (errors.Is(err, syscall.ECONNREFUSED)), which comes when the pod's connect has answered; the wait is
// bounded only by ctx and the pod's kernel.
//
// A "tcp" connection is a *Conn. A "udp" one keeps datagrams apart: a Write sends one, a Read receives one, and
// returns the errno that a connected socket would, once, if the pod's socket met one; it ends when it has been idle
// in the pod for 5 minutes.
func (c *Client) DialContext(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	var err error
	switch network {
	case "tcp", "tcp4", "tcp6":
		var conn *Conn
		if conn, err = c.dialTCP(ctx, addr); err == nil {
			return conn, nil
		}
	case "udp", "udp4", "udp6":
		var conn net.Conn
		if conn, err = c.dialUDP(ctx, addr); err == nil {
			return conn, nil
		}
	default:
		err = net.UnknownNetworkError(network)
	}
	return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(addr), Err: err}
}

func (c *Client) dialTCP(ctx context.Context, addr netip.AddrPort) (*Conn, error) {
	number := c.numbers.Add(1)
	payload := ssh.Marshal(openTCP{
		Host:       addr.Addr().String(),
		Port:       uint32(addr.Port()),
		OriginHost: "127.0.0.1",
		OriginPort: number,
	})
	ch, reqs, err := c.open(ctx, channelTCP, payload, number)
	if err != nil {
		return nil, err
	}
	return newConn(&c.tunnel, newBond(&c.tunnel, ch, number), reqs, "tcp", &net.TCPAddr{}, net.TCPAddrFromAddrPort(addr)), nil
}

// openTCP is the agent's end of dialTCP.
func (s *session) openTCP(ctx context.Context, nc ssh.NewChannel) {
	var p openTCP
	if err := ssh.Unmarshal(nc.ExtraData(), &p); err != nil {
		refuse(nc, err)
		return
	}
	ctx, done := s.cancellable(ctx, p.OriginPort)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))))
	done()
	if err != nil {
		refuse(nc, err)
		return
	}
	s.relay(nc, conn, p.OriginPort)
}

// relay accepts nc and carries conn over it, as the flow of that number.
func (s *session) relay(nc ssh.NewChannel, conn net.Conn, number uint32) {
	sock, ok := conn.(*net.TCPConn)
	if !ok {
		refuse(nc, fmt.Errorf("%T is not a TCP connection", conn))
		_ = conn.Close()
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		_ = sock.Close() // err means that the tunnel is gone
		return
	}
	(&relay{t: &s.tunnel, ch: newBond(&s.tunnel, ch, number), sock: sock}).run(reqs)
}
