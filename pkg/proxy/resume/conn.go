// Package resume keeps a byte stream alive across the connections under it: a Conn is a net.Conn that outlives them.
//
// One side dials (Dial), the other listens (Listen). When the transport between them breaks or falls silent, the
// dialer makes a new one, both say how far they got, and what was lost under way is sent again; readers and writers
// notice nothing but the time it takes. A Conn gives up when it has had no transport for its grace.
//
// Each side keeps what it has sent until the other side's user has read it, in a bounded buffer; a full one stops
// the writer. The receiver always has room for that much, so it goes on hearing acknowledgements while nobody reads.
//
// A transport needs a token that both sides hold, but the stream is neither encrypted nor authenticated: what runs
// over a Conn must see to that.
package resume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/telepresence/telepresence/pkg/proxy/gate"
)

const (
	minBuffer     = 64 << 10
	maxBuffer     = 256 << 20
	defaultBuffer = 4 << 20
	// deadAfter is how many keepalive intervals without a byte make a transport a dead one.
	deadAfter = 4
	// ackEvery is how many bytes may have been read before the other side hears of it.
	ackEvery = 256 << 10
	// unsentMost is how many bytes may wait to be sent before WaitRoom waits, so that nothing waits behind much.
	unsentMost = 256 << 10
	// linger is how long Close waits for what was written to leave.
	linger = 5 * time.Second
)

// Config is what a side of a Conn is set to.
type Config struct {
	// Token is what both sides hold. It is never sent.
	Token []byte
	// Grace is how long a Conn lives without a transport.
	Grace time.Duration
	// Buffer is how many bytes are kept in each direction, at most; the smaller of both sides' holds. Throughput is
	// limited to this much per round trip. Default 4 MiB.
	Buffer int
	// Headroom is how many bytes more Write takes before it blocks, for a user whose bulk data goes through WaitRoom
	// and whose control messages must never wait for the other side.
	Headroom int
	// Keepalive is how often a side says something; four times as long without a word from the other side, and the
	// transport is dead. Default 5 s.
	Keepalive time.Duration
	// Log gets what happens to transports. Default: nothing is logged.
	Log *slog.Logger
	// Down is called when a transport is lost, with the reason, and Up when there is a new one. Neither may block.
	Down func(error)
	Up   func()
}

// withDefaults is cfg, complete.
func (cfg Config) withDefaults() Config {
	if cfg.Buffer == 0 {
		cfg.Buffer = defaultBuffer
	}
	cfg.Buffer = min(max(cfg.Buffer, minBuffer), maxBuffer)
	if cfg.Keepalive <= 0 {
		cfg.Keepalive = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Down == nil {
		cfg.Down = func(error) {}
	}
	if cfg.Up == nil {
		cfg.Up = func() {}
	}
	return cfg
}

// Conn is a net.Conn that outlives its transports. It is safe for concurrent use. Whoever got it must Close it.
type Conn struct {
	cfg  Config
	id   sessionID
	next func(context.Context) (*transport, error) // the next transport, or why there will be none

	stop func()        // cancels what run does between transports
	done chan struct{} // closed when run has returned
	wg   sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	readable gate.Gate
	writable gate.Gate
	sendable gate.Gate // something for the transport's writer
	send     ring      // bytes the other side's user has not read
	sent     uint64
	limit    int // send's length, at most
	recv     ring
	acked    uint64 // recv.start as last told the other side
	ackDue   bool
	closing  bool  // Close was called
	finSent  bool  // on the present transport
	finRead  bool  // the other side has closed
	err      error // why there will be no transport any more
	current  *transport
	linked   gate.Gate // current has changed
	reads    time.Time // deadlines
	writes   time.Time
	local    net.Addr
	remote   net.Addr
}

// newConn makes a Conn; start begins its life.
func newConn(cfg Config, id sessionID) *Conn {
	return &Conn{cfg: cfg, id: id, limit: cfg.Buffer, done: make(chan struct{}), stop: func() {}}
}

// start lets the Conn live on first, then on what next returns, until ctx ends, it is closed, or next fails.
func (c *Conn) start(ctx context.Context, first *transport) {
	ctx, c.stop = context.WithCancel(ctx)
	c.wg.Go(func() { c.run(ctx, first) })
}

// Read reads what the other side wrote. After its Close it returns io.EOF; when the Conn has given up, the reason.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closing:
			return 0, net.ErrClosed
		case gate.Expired(c.reads) != nil:
			return 0, os.ErrDeadlineExceeded
		case c.recv.len() > 0 || len(p) == 0:
			n := c.recv.read(c.recv.start, p)
			c.recv.start += uint64(n)
			if !c.ackDue && c.recv.start-c.acked >= uint64(min(c.limit/4, ackEvery)) {
				c.ackDue = true
				c.sendable.Open()
			}
			return n, nil
		case c.finRead:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.err
		}
		c.readable.Await(&c.mu, c.reads)
	}
}

// Write writes to the other side: it returns when all of p is in the buffer.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := 0; ; {
		switch {
		case c.closing:
			return n, net.ErrClosed
		case gate.Expired(c.writes) != nil:
			return n, os.ErrDeadlineExceeded
		case c.finRead:
			return n, syscall.EPIPE
		case c.err != nil:
			return n, c.err
		case len(p) == n:
			return n, nil
		}
		if room := min(c.limit+c.cfg.Headroom-c.send.len(), len(p)-n); room > 0 {
			c.send.grow(room)
			n += c.send.append(p[n : n+room])
			c.sendable.Open()
			continue
		}
		c.writable.Await(&c.mu, c.writes)
	}
}

// WaitRoom waits until the buffer has room and little of it still waits to be sent. It returns the error that Write
// would. Deadlines don't hold for it.
func (c *Conn) WaitRoom() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closing:
			return net.ErrClosed
		case c.finRead:
			return syscall.EPIPE
		case c.err != nil:
			return c.err
		case c.send.len() < c.limit && c.send.end-c.sent < unsentMost:
			return nil
		}
		c.writable.Await(&c.mu, time.Time{})
	}
}

// wakeLocked wakes everybody who waits for anything.
func (c *Conn) wakeLocked() {
	c.readable.Open()
	c.writable.Open()
	c.sendable.Open()
}

// Close sends what was written, as far as there is a transport that takes it within 5 s, tells the other side, and
// ends the Conn. Reads and writes in flight return net.ErrClosed.
func (c *Conn) Close() error {
	c.mu.Lock()
	if !c.closing {
		c.closing = true
		c.wakeLocked()
	}
	up := c.current != nil
	c.mu.Unlock()
	if up {
		timer := time.NewTimer(linger)
		defer timer.Stop()
		select {
		case <-c.done:
		case <-timer.C:
		}
	}
	c.stop()
	c.drop(net.ErrClosed)
	c.wg.Wait()
	return nil
}

// drop ends the present transport.
func (c *Conn) drop(why error) {
	c.mu.Lock()
	t := c.current
	c.mu.Unlock()
	if t != nil {
		t.end(why)
	}
}

// setCurrentLocked makes t, or none, the present transport.
func (c *Conn) setCurrentLocked(t *transport) {
	c.current = t
	c.linked.Open()
}

// Link returns whether there is a transport, and a channel that is closed when that may have changed.
func (c *Conn) Link() (up bool, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current != nil, c.linked.Changed()
}

// Done is closed when the Conn has ended: closed by either side, or given up. Err then says why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the Conn has given up; nil while it lives, or when it was closed in order.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// LocalAddr returns the local address of the last transport.
func (c *Conn) LocalAddr() net.Addr { return c.addr(&c.local) }

// RemoteAddr returns the remote address of the last transport.
func (c *Conn) RemoteAddr() net.Addr { return c.addr(&c.remote) }

func (c *Conn) addr(a *net.Addr) net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *a
}

// SetDeadline sets both deadlines. They hold for calls in flight too.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets until when Read waits.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.reads, t)
}

// SetWriteDeadline sets until when Write waits.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writes, t)
}

func (c *Conn) setDeadline(d *time.Time, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return net.ErrClosed
	}
	*d = t
	c.readable.Open()
	c.writable.Open()
	return nil
}

// run is the Conn's life: one transport after the other.
func (c *Conn) run(ctx context.Context, t *transport) {
	defer close(c.done)
	for {
		err := c.serve(t)
		c.mu.Lock()
		over := c.closing || c.finRead
		c.mu.Unlock()
		if over {
			c.finish(nil)
			return
		}
		c.cfg.Log.Info("transport lost", "reason", err)
		c.cfg.Down(err)
		if t, err = c.next(ctx); err != nil {
			c.finish(err)
			return
		}
		c.cfg.Log.Info("transport resumed")
		c.cfg.Up()
	}
}

// finish ends the Conn; err is nil when either side closed it.
func (c *Conn) finish(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		err = nil
	}
	c.err = err
	c.send = ring{start: c.send.start, end: c.send.start}
	c.wakeLocked()
}

// positionLocked is where this side is.
func (c *Conn) positionLocked(resumed bool) position {
	return position{resumed: resumed, received: c.recv.end, buffer: uint32(c.cfg.Buffer)}
}

// adopt makes t the present transport; peer is where the other side is.
func (c *Conn) adopt(t *transport, peer position) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return net.ErrClosed
	}
	if peer.received < c.send.start || peer.received > c.send.end {
		return fmt.Errorf("%w: the other side is at byte %d, not within %d to %d", ErrUnknown, peer.received, c.send.start, c.send.end)
	}
	c.sent = peer.received
	c.limit = min(c.cfg.Buffer, int(min(peer.buffer, maxBuffer)))
	c.finSent, c.ackDue = false, true
	c.setCurrentLocked(t)
	c.local, c.remote = t.nc.LocalAddr(), t.nc.RemoteAddr()
	return nil
}
