package proxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// udpIdle is how long a UDP socket in the pod lives without a datagram.
const udpIdle = 5 * time.Minute

// datagrams keeps the datagrams on a Conn apart.
type datagrams struct {
	*Conn

	readMu sync.Mutex // guards part
	part   []byte     // what has come of the next datagram, its length included

	writeMu sync.Mutex // keeps datagrams in one piece
}

// Read reads the next datagram; what doesn't fit into p is lost.
func (d *datagrams) Read(p []byte) (int, error) {
	d.readMu.Lock()
	defer d.readMu.Unlock()
	body, failed, err := d.nextLocked()
	if err != nil {
		return 0, err
	}
	if failed {
		return 0, d.opError("read", errnoOf(string(body)))
	}
	return copy(p, body), nil
}

// nextLocked returns the next datagram, or the error that came instead. It keeps what has come when a deadline
// passes. The result is valid until the next call.
func (d *datagrams) nextLocked() (body []byte, failed bool, err error) {
	start := 2
	if err := d.haveLocked(start); err != nil {
		return nil, false, err
	}
	size := int(d.part[0])<<8 | int(d.part[1])
	if size == datagramError {
		failed, start = true, 4
		if err := d.haveLocked(start); err != nil {
			return nil, false, err
		}
		size = int(d.part[2])<<8 | int(d.part[3])
	}
	if err := d.haveLocked(start + size); err != nil {
		return nil, false, err
	}
	body = d.part[start : start+size]
	d.part = d.part[:0]
	return body, failed, nil
}

// haveLocked reads until part is n bytes long.
func (d *datagrams) haveLocked(n int) error {
	if cap(d.part) < n {
		d.part = append(make([]byte, 0, n), d.part...)
	}
	for len(d.part) < n {
		m, err := d.Conn.Read(d.part[len(d.part):n])
		d.part = d.part[:len(d.part)+m]
		if err != nil {
			return err
		}
	}
	return nil
}

// Write sends p as one datagram.
func (d *datagrams) Write(p []byte) (int, error) {
	if len(p) > maxDatagram {
		return 0, d.opError("write", syscall.EMSGSIZE)
	}
	if err := d.writeFrame(appendDatagram(make([]byte, 0, 2+len(p)), p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// writeFrame writes b; if only a part of it could be written, the flow is of no use any more.
func (d *datagrams) writeFrame(b []byte) error {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	n, err := d.Conn.Write(b)
	if n > 0 && n < len(b) {
		_ = d.Close() // err is the one that counts
	}
	return err
}

// WriteTo copies datagrams to w, each in one Write.
func (d *datagrams) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{d}) }

// ReadFrom sends what each Read of r yields as one datagram.
func (d *datagrams) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{d}, struct{ io.Reader }{r}, make([]byte, maxDatagram))
}

func (c *Client) dialUDP(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ch, reqs, err := c.open(ctx, channelUDP, ssh.Marshal(openAddr{Addr: addr.String()}), 0)
	if err != nil {
		return nil, err
	}
	return &datagrams{Conn: newConn(&c.tunnel, ch, reqs, "udp", &net.UDPAddr{}, net.UDPAddrFromAddrPort(addr))}, nil
}

// openUDP is the agent's end of dialUDP.
func (s *session) openUDP(_ context.Context, nc ssh.NewChannel) {
	var p openAddr
	if err := ssh.Unmarshal(nc.ExtraData(), &p); err != nil {
		refuse(nc, err)
		return
	}
	addr, err := netip.ParseAddrPort(p.Addr)
	if err != nil {
		refuse(nc, err)
		return
	}
	sock, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		refuse(nc, err)
		return
	}
	defer sock.Close()
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	(&udpRelay{t: &s.tunnel, ch: ch, sock: sock}).run(reqs)
}

// udpRelay carries the datagrams of a UDP socket over ch: those of a connected one, or, if named is set, each with
// its address.
type udpRelay struct {
	t     *tunnel
	ch    ssh.Channel
	sock  *net.UDPConn
	named bool

	used    atomic.Bool // since the last look
	writeMu sync.Mutex  // keeps frames on ch in one piece
}

func (r *udpRelay) run(reqs <-chan *ssh.Request) {
	var wg sync.WaitGroup
	over := make(chan struct{})
	wg.Go(func() {
		ssh.DiscardRequests(reqs)
		close(over)
		_ = r.sock.SetReadDeadline(time.Now()) // ends fromPod; fails on a closed socket only
	})
	wg.Go(r.fromPod)
	if !r.named {
		wg.Go(func() { r.expire(over) })
	}
	r.toPod()
	_ = r.ch.Close() // fails when the client was first
	wg.Wait()
}

// expire closes the flow when nothing has come either way for a while.
func (r *udpRelay) expire(over <-chan struct{}) {
	tick := time.NewTicker(udpIdle)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		if !r.used.Swap(false) {
			_ = r.ch.Close() // and the client's close ends the rest
		}
	}
}

// fromPod copies what the pod's socket receives.
func (r *udpRelay) fromPod() {
	rc, err := r.sock.SyscallConn()
	if err != nil {
		return
	}
	for {
		if err = waitDatagram(rc); err == nil {
			err = r.forward()
		}
		var errno syscall.Errno
		if errors.As(err, &errno) && !errors.Is(err, net.ErrClosed) {
			err = r.write(datagramErrorFrame(errnoName(errno)))
		}
		if err != nil {
			return
		}
	}
}

// datagramBuffers hold a datagram of any size.
var datagramBuffers = sync.Pool{New: func() any {
	b := make([]byte, 2*maxDatagram)
	return &b
}}

// forward receives the next datagram and sends it on.
func (r *udpRelay) forward() error {
	buf := datagramBuffers.Get().(*[]byte)
	defer datagramBuffers.Put(buf)
	body := (*buf)[:maxDatagram]
	n, addr, err := r.sock.ReadFromUDPAddrPort(body)
	if err != nil {
		return err
	}
	frame := (*buf)[maxDatagram:maxDatagram]
	if r.named {
		name := marshalAddr(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(name)+n))
		frame = append(append(frame, name...), body[:n]...)
	} else {
		frame = appendDatagram(frame, body[:n])
	}
	return r.write(frame)
}

// waitDatagram waits until there is something to receive, so that idle flows need no buffer. It returns the
// socket's error if it has one.
func waitDatagram(rc syscall.RawConn) error {
	var peek [1]byte
	var err error
	waitErr := rc.Read(func(fd uintptr) bool {
		_, _, err = syscall.Recvfrom(int(fd), peek[:], syscall.MSG_PEEK)
		return !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
	})
	if waitErr != nil {
		return waitErr
	}
	return err
}

// write sends a frame to the client.
func (r *udpRelay) write(frame []byte) error {
	r.used.Store(true)
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
	return writeChannel(r.t, r.ch, frame)
}

// toPod sends what the client sends, until the client ends.
func (r *udpRelay) toPod() {
	br := bufio.NewReaderSize(r.ch, 2<<10)
	buf := make([]byte, 2<<10)
	for {
		p, _, err := readDatagram(br, buf)
		if err != nil {
			return
		}
		r.used.Store(true)
		if err := r.sendOut(p); err != nil {
			var errno syscall.Errno
			if !errors.As(err, &errno) {
				return
			}
			if r.write(datagramErrorFrame(errnoName(errno))) != nil {
				return
			}
		}
	}
}

func (r *udpRelay) sendOut(p []byte) error {
	if !r.named {
		_, err := r.sock.Write(p)
		return err
	}
	addr, rest, err := cutAddr(p)
	if err != nil {
		return err
	}
	_, err = r.sock.WriteToUDPAddrPort(rest, addr)
	return err
}
