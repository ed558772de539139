package proxy

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// packetConn is an unconnected UDP socket in the pod.
type packetConn struct {
	flow *datagrams
	addr net.Addr
}

// ListenUDP binds a UDP socket in the pod; port 0 lets the pod choose. Addresses are *net.UDPAddr. Errors are those of
// the pod's bind.
func (c *Client) ListenUDP(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	ch, reqs, err := c.open(ctx, channelListenUDP, ssh.Marshal(openListen{Addr: addr.String()}), 0)
	var bound netip.AddrPort
	if err == nil {
		bound, err = readBound(ch)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(addr), Err: err}
	}
	local := net.UDPAddrFromAddrPort(bound)
	return &packetConn{flow: &datagrams{Conn: newConn(&c.tunnel, ch, reqs, "udp", local, nil)}, addr: local}, nil
}

// ReadFrom receives the next datagram; what doesn't fit into p is lost.
func (pc *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	d := pc.flow
	d.readMu.Lock()
	defer d.readMu.Unlock()
	body, failed, err := d.nextLocked()
	if err != nil {
		return 0, nil, err
	}
	if failed {
		return 0, nil, d.opError("read", errnoOf(string(body)))
	}
	from, rest, err := cutAddr(body)
	if err != nil {
		return 0, nil, d.opError("read", err)
	}
	return copy(p, rest), net.UDPAddrFromAddrPort(from), nil
}

// WriteTo sends p to addr, a *net.UDPAddr.
func (pc *packetConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, pc.flow.opError("write", syscall.EINVAL)
	}
	if len(p) > maxDatagram {
		return 0, pc.flow.opError("write", syscall.EMSGSIZE)
	}
	name := marshalAddr(to.AddrPort())
	frame := make([]byte, 0, 2+len(name)+len(p))
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(name)+len(p)))
	if err := pc.flow.writeFrame(append(append(frame, name...), p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close closes the pod's socket.
func (pc *packetConn) Close() error { return pc.flow.Close() }

// LocalAddr returns the address in the pod.
func (pc *packetConn) LocalAddr() net.Addr { return pc.addr }

// SetDeadline sets both deadlines.
func (pc *packetConn) SetDeadline(t time.Time) error { return pc.flow.SetDeadline(t) }

// SetReadDeadline sets until when ReadFrom waits.
func (pc *packetConn) SetReadDeadline(t time.Time) error { return pc.flow.SetReadDeadline(t) }

// SetWriteDeadline sets until when WriteTo waits.
func (pc *packetConn) SetWriteDeadline(t time.Time) error { return pc.flow.SetWriteDeadline(t) }

// openListenUDP is the agent's end of ListenUDP.
func (s *session) openListenUDP(ctx context.Context, nc ssh.NewChannel) {
	_, addr, err := parseListen(nc)
	if err != nil {
		refuse(nc, err)
		return
	}
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, "udp", addr.String())
	if err != nil {
		refuse(nc, err)
		return
	}
	defer pc.Close()
	sock, ok := pc.(*net.UDPConn)
	if !ok {
		refuse(nc, syscall.EINVAL) // can't be
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	r := &udpRelay{t: &s.tunnel, ch: ch, sock: sock, named: true}
	_ = r.write([]byte(sock.LocalAddr().String() + "\n")) // fails when ch has ended; then run returns at once
	r.run(reqs)
}
