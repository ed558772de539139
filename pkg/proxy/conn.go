package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telepresence/telepresence/pkg/proxy/gate"
)

// writeBuffer is how many bytes a Conn takes before Write blocks.
const writeBuffer = 64 << 10

// tunnel is what the flows of one end need of it.
type tunnel struct {
	tasks group
	dead  atomic.Bool  // set before the channels end because the tunnel does
	room  func() error // waits until bulk data may be sent
	conn  ssh.Conn

	stripes bool         // whether the other end may send over several channels
	rtt     atomic.Int64 // a round trip to the other end, 0 until measured

	mu    sync.Mutex // guards bonds
	bonds map[uint32]*bond
}

// flowChannel is what a flow needs of its channel.
type flowChannel interface {
	io.ReadWriteCloser
	CloseWrite() error
	SendRequest(name string, wantReply bool, payload []byte) (bool, error)
}

// Conn is a TCP connection of the pod as a net.Conn: its other end is in the pod. It is safe for concurrent use.
// Close does not wait for what was written to arrive; Reset throws it away.
type Conn struct {
	t             *tunnel
	ch            flowChannel
	network       string
	local, remote net.Addr

	mu       sync.Mutex // guards the fields below
	readable gate.Gate
	writable gate.Gate
	in       []byte // read from ch, not yet by the user
	filling  bool   // somebody reads from ch
	readErr  error  // what ends the reading, after in
	out      []byte // written by the user, not yet to ch
	flushing bool   // somebody writes to ch
	writeErr error
	shut     bool  // CloseWrite was called
	closed   bool  // Close or Reset was called
	reset    error // the other end reset the connection, or it ended by this
	reads    time.Time
	writes   time.Time
}

// newConn makes a Conn of an open channel, and serves its requests.
func newConn(t *tunnel, ch flowChannel, reqs <-chan *ssh.Request, network string, local, remote net.Addr) *Conn {
	c := &Conn{t: t, ch: ch, network: network, local: local, remote: remote}
	if !t.tasks.start(func() { c.requests(reqs) }) {
		c.closed = true
		_ = ch.Close() // the tunnel is closed anyway
	}
	return c
}

// requests handles the other end's requests until the channel is closed.
func (c *Conn) requests(reqs <-chan *ssh.Request) {
	for req := range reqs {
		if req.Type == requestReset {
			c.mu.Lock()
			c.reset = errnoOf(string(req.Payload))
			c.out = nil
			c.mu.Unlock()
			_ = c.ch.Close() // and the other end closes, which ends reads and writes with c.reset known
		}
		_ = req.Reply(false, nil) // fails only when the tunnel is gone
	}
	if b, ok := c.ch.(*bond); ok {
		b.end()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeErr == nil {
		c.writeErr = c.endLocked(syscall.EPIPE)
	}
	c.writable.Open()
}

// endLocked is why the channel ended: usual if nothing else is known.
func (c *Conn) endLocked(usual error) error {
	switch {
	case c.reset != nil:
		return c.reset
	case c.t.dead.Load():
		return syscall.ECONNRESET
	}
	return usual
}

func (c *Conn) opError(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: c.network, Source: c.local, Addr: c.remote, Err: err}
}

// Read reads what the pod's end sent.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case gate.Expired(c.reads) != nil:
			return 0, c.opError("read", gate.Expired(c.reads))
		case len(c.in) > 0 || len(p) == 0:
			n := copy(p, c.in)
			c.in = c.in[n:]
			return n, nil
		case c.readErr != nil:
			return 0, c.opError("read", c.readErr)
		case !c.filling:
			c.filling = true
			if !c.t.tasks.start(c.fill) {
				c.readErr = syscall.ECONNRESET
				continue
			}
		}
		c.readable.Await(&c.mu, c.reads)
	}
}

// fill reads from ch once.
func (c *Conn) fill() {
	buf := make([]byte, 16<<10)
	n, err := c.ch.Read(buf)
	c.filled(buf[:n], err)
}

// filled ends the turn of whoever reads from ch.
func (c *Conn) filled(in []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in, c.filling = in, false
	if err != nil {
		c.readErr = c.endLocked(err)
	}
	c.readable.Open()
}

// WriteTo copies what the pod's end sends to w until its end. It is faster than Read. It is not ended by read
// deadlines that are set while it runs.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	c.mu.Lock()
	direct := !c.filling && !c.closed && len(c.in) == 0 && c.readErr == nil && c.reads.IsZero()
	c.filling = c.filling || direct
	c.mu.Unlock()
	if !direct {
		return io.Copy(w, struct{ io.Reader }{c})
	}
	n, readErr, writeErr := copyChannel(w, c.ch)
	c.filled(nil, readErr)
	if writeErr != nil {
		return n, writeErr
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return n, c.opError("read", net.ErrClosed)
	}
	if errors.Is(c.readErr, io.EOF) {
		return n, nil
	}
	return n, c.opError("read", c.readErr)
}

// Write sends p to the pod's end. It returns when all of p is under way, and blocks while the other end's reader
// is slow.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := 0; ; {
		switch {
		case c.closed:
			return n, c.opError("write", net.ErrClosed)
		case gate.Expired(c.writes) != nil:
			return n, c.opError("write", gate.Expired(c.writes))
		case c.shut:
			return n, c.opError("write", syscall.EPIPE)
		case c.writeErr != nil:
			return n, c.opError("write", c.writeErr)
		case n == len(p):
			return n, nil
		}
		if room := min(writeBuffer-len(c.out), len(p)-n); room > 0 {
			c.out = append(c.out, p[n:n+room]...)
			n += room
			c.startFlushLocked()
			continue
		}
		c.writable.Await(&c.mu, c.writes)
	}
}

func (c *Conn) startFlushLocked() {
	if c.flushing {
		return
	}
	c.flushing = true
	if !c.t.tasks.start(c.flush) {
		c.flushing = false
		c.writeErr = syscall.ECONNRESET
	}
}

// flush writes what is in out to ch.
func (c *Conn) flush() {
	var spare []byte
	for {
		c.mu.Lock()
		if len(c.out) == 0 || c.writeErr != nil {
			c.flushedLocked()
			c.mu.Unlock()
			return
		}
		out := c.out
		c.out = spare[:0]
		c.writable.Open()
		c.mu.Unlock()
		c.send(out)
		spare = out
	}
}

// send writes p to ch. Only whoever has set flushing may call it.
func (c *Conn) send(p []byte) {
	err := writeChannel(c.t, c.ch, p)
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeErr == nil {
		c.writeErr = c.endLocked(syscall.EPIPE)
	}
}

// flushedLocked ends the turn of whoever writes to ch, and does what had to wait for that.
func (c *Conn) flushedLocked() {
	c.flushing = false
	c.out = nil
	c.writable.Open()
	if c.shut || c.closed {
		_ = c.ch.CloseWrite() // fails only when the channel has ended
	}
	if c.closed {
		_ = c.ch.Close() // likewise
	}
}

// ReadFrom sends what r yields until its end. It is faster than Write. It is not ended by write deadlines that are
// set while it runs.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	buf := takeBuffer()
	defer giveBuffer(buf)
	for total := int64(0); ; {
		n, err := r.Read(*buf)
		if n > 0 {
			if werr := c.writeNow((*buf)[:n]); werr != nil {
				return total, werr
			}
			total += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// writeNow writes p to ch at once where nothing is to go before it.
func (c *Conn) writeNow(p []byte) error {
	c.mu.Lock()
	if c.flushing || c.closed || c.shut || c.writeErr != nil || !c.writes.IsZero() {
		c.mu.Unlock()
		_, err := c.Write(p)
		return err
	}
	c.flushing = true
	c.mu.Unlock()
	c.send(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) > 0 && c.writeErr == nil {
		c.flushing = false
		c.startFlushLocked()
	} else {
		c.flushedLocked()
	}
	return c.opError("write", c.writeErr)
}

// CloseWrite ends the sending; reading goes on.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	if !c.shut {
		c.shut = true
		if !c.flushing {
			c.flushedLocked()
		}
	}
	return nil
}

// Close ends both directions; what was written is still sent.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.in = nil
	c.readable.Open()
	c.writable.Open()
	if !c.flushing {
		c.flushedLocked()
	}
	return nil
}

// Reset ends the connection as a closed socket with linger 0 does: what was written is lost, and the pod's end gets
// a reset.
func (c *Conn) Reset() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.in, c.out = nil, nil
	c.readable.Open()
	c.writable.Open()
	_, err := c.ch.SendRequest(requestReset, false, []byte("ECONNRESET")) // the other end then closes
	return err
}

// LocalAddr returns the address in the pod; unspecified where the pod chose it.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the pod's peer.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines. They hold for calls of Read and Write in flight too.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets until when Read waits.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.reads, &c.readable, t)
}

// SetWriteDeadline sets until when Write waits.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writes, &c.writable, t)
}

func (c *Conn) setDeadline(d *time.Time, g *gate.Gate, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	*d = t
	g.Open()
	return nil
}
