package resume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
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
