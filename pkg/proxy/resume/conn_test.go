package resume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line is a dialer's way to a listener, whose transports the test can cut.
type line struct {
	addr string

	mu  sync.Mutex
	ncs []net.Conn
	cut bool // nothing gets through
}

func (l *line) dial(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errors.New("line is cut")
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.addr)
	if err == nil {
		l.ncs = append(l.ncs, nc)
	}
	return nc, err
}

// breakNow closes all transports; cut says whether new ones can be made.
func (l *line) breakNow(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for _, nc := range l.ncs {
		_ = nc.Close()
	}
	l.ncs = nil
}

func (l *line) repair() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

func testConfig() Config {
	return Config{Token: []byte("0123456789abcdef"), Grace: time.Minute}
}

// pair returns both ends of a Conn, and the line between them.
func pair(t testing.TB, dialer, listener Config) (c, s *Conn, ln *line) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(context.Background(), inner, listener)
	t.Cleanup(func() { _ = l.Close() })
	ln = &line{addr: inner.Addr().String()}
	c, err = Dial(context.Background(), ln.dial, dialer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s, err = l.Accept(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return c, s, ln
}

func TestConnConforms(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c, s, _ := pair(t, testConfig(), testConfig())
		return c, s, func() { _ = c.Close(); _ = s.Close() }, nil
	})
}

// TestConnOutlivesTransports sends much both ways while the line breaks again and again.
func TestConnOutlivesTransports(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.Buffer = minBuffer
	c, s, ln := pair(t, cfg, cfg)
	const size = 8 << 20
	var wg sync.WaitGroup
	sums := make([][2][32]byte, 2)
	for i, ends := range [][2]*Conn{{c, s}, {s, c}} {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(rand.Uint32())
		}
		sums[i][0] = sha256.Sum256(data)
		wg.Go(func() {
			if _, err := ends[0].Write(data); err != nil {
				t.Error("write:", err)
			}
		})
		wg.Go(func() {
			var got bytes.Buffer
			buf := make([]byte, 10000)
			for next := size / 10; got.Len() < size; {
				n, err := ends[1].Read(buf)
				if err != nil {
					t.Error("read:", err)
					return
				}
				got.Write(buf[:n])
				if got.Len() > next {
					next += size / 10
					ln.breakNow(false)
				}
			}
			sums[i][1] = sha256.Sum256(got.Bytes())
		})
	}
	wg.Wait()
	for i, s := range sums {
		if s[0] != s[1] {
			t.Errorf("direction %d: what arrived is not what was sent", i)
		}
	}
}

func TestConnGivesUpAfterGrace(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.Grace = 300 * time.Millisecond
	c, s, ln := pair(t, cfg, cfg)
	ln.breakNow(true)
	for _, end := range []*Conn{c, s} {
		_, err := end.Read(make([]byte, 1))
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("Read after the grace: %v, want the reason", err)
		}
		<-end.Done()
		if end.Err() == nil {
			t.Error("Err is nil after the grace")
		}
	}
}

// TestConnNoticesSilence takes the line away without a word: both sides must notice, and the dialer find a way round.
func TestConnNoticesSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		cfg := testConfig()
		downs := make(chan error, 10)
		ups := make(chan struct{}, 10)
		cfg.Down = func(err error) { downs <- err }
		cfg.Up = func() { ups <- struct{}{} }
		rl := Listen(t.Context(), l, testConfig())
		defer rl.Close()
		c, err := Dial(t.Context(), l.dial, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := rl.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		// An idle line is no dead one.
		<-time.After(10 * time.Minute) // of fake time
		if len(downs) > 0 {
			t.Fatalf("an idle line broke: %v", <-downs)
		}
		start := time.Now()
		l.freeze()
		if err := <-downs; !errors.Is(err, errSilent) {
			t.Errorf("Down: %v, want %v", err, errSilent)
		}
		<-ups
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("it took %v to notice and to find a new way", took)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(s, buf); err != nil || string(buf) != "hello" {
			t.Errorf("read %q, %v", buf, err)
		}
	})
}

// pipeListener is a listener in memory whose lines can be frozen: nothing comes through any more, and nobody knows.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	lines []*frozenConn
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	fa := &frozenConn{Conn: a, frozen: make(chan struct{}), closed: make(chan struct{})}
	fb := &frozenConn{Conn: b, frozen: make(chan struct{}), closed: make(chan struct{})}
	l.mu.Lock()
	l.lines = append(l.lines, fa, fb)
	l.mu.Unlock()
	select {
	case l.conns <- fb:
		return fa, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// freeze freezes the lines there are.
func (l *pipeListener) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.lines {
		close(c.frozen)
	}
	l.lines = nil
}

// frozenConn is a net.Conn that stands still once frozen is closed.
type frozenConn struct {
	net.Conn
	frozen, closed chan struct{}
	once           sync.Once
}

func (c *frozenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.stuck() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *frozenConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.stuck() {
		return 0, net.ErrClosed
	}
	return n, err
}

// stuck waits for Close if the line is frozen.
func (c *frozenConn) stuck() bool {
	select {
	case <-c.frozen:
		<-c.closed
		return true
	default:
		return false
	}
}

func (c *frozenConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	select {
	case <-c.frozen:
		return c.SetDeadline(time.Unix(1, 0)) // our calls end, and the other side doesn't hear of it
	default:
		return c.Conn.Close()
	}
}

// TestListenerTakesOver gives a Conn a new transport while the old one seems to live.
func TestListenerTakesOver(t *testing.T) {
	t.Parallel()
	c, s, ln := pair(t, testConfig(), testConfig())
	// What the dialer does when it has lost its line, and the listener has not noticed.
	ln.mu.Lock()
	old := ln.ncs
	ln.ncs = nil
	ln.mu.Unlock()
	c.drop(errors.New("the test wants another line"))
	for _, nc := range old {
		_ = nc.Close()
	}
	for _, ends := range [][2]*Conn{{c, s}, {s, c}} {
		if _, err := ends[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(ends[1], buf); err != nil || string(buf) != "hello" {
			t.Errorf("read %q, %v", buf, err)
		}
	}
}

// TestListenerForgets answers a dialer whose session has ended.
func TestListenerForgets(t *testing.T) {
	t.Parallel()
	c, s, ln := pair(t, testConfig(), testConfig())
	ln.breakNow(true)
	_ = s.Close()
	ln.repair()
	<-c.Done()
	if !errors.Is(c.Err(), ErrUnknown) {
		t.Errorf("the dialer ended with %v, want ErrUnknown", c.Err())
	}
}

// TestListenerOneAtATime lets another dialer come while one is there, and when its line is cut.
func TestListenerOneAtATime(t *testing.T) {
	t.Parallel()
	_, first, ln := pair(t, testConfig(), testConfig())
	dial := func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", ln.addr) }
	if _, err := Dial(t.Context(), dial, testConfig()); !errors.Is(err, ErrBusy) {
		t.Errorf("a second dialer: %v, want ErrBusy", err)
	}
	ln.breakNow(true)
	for { // until the listener has noticed
		second, err := Dial(t.Context(), dial, testConfig())
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		<-first.Done()
		_ = first.Close()
		_ = second.Close()
		return
	}
}

// TestHeadroom writes beyond the buffer where nobody reads.
func TestHeadroom(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.Buffer, cfg.Headroom = minBuffer, 1<<20
	c, s, _ := pair(t, cfg, cfg)
	data := make([]byte, minBuffer+1<<20)
	if n, err := c.Write(data); n != len(data) || err != nil {
		t.Errorf("wrote %d of %d bytes, %v", n, len(data), err)
	}
	if err := c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write(data); n == len(data) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote %d of %d bytes beyond the headroom, %v", n, len(data), err)
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.WaitRoom(); err != nil {
			t.Error("WaitRoom:", err)
		}
		_ = c.Close()
	})
	if n, err := io.Copy(io.Discard, s); n < int64(len(data)) || err != nil {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
	wg.Wait()
}
