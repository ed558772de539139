package mount

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// pod is an SFTP server in this process, behind a wire that can stall, break
// and be long.
type pod struct {
	t     testing.TB
	delay time.Duration // each way

	mu      sync.Mutex
	stalled chan struct{} // not nil while nothing gets through
	conns   []net.Conn
	opened  int
	serving sync.WaitGroup
}

func newPod(t testing.TB) *pod {
	p := &pod{t: t}
	t.Cleanup(func() {
		p.resume()
		p.cut()
		p.serving.Wait()
	})
	return p
}

// open is a Config's SFTP.
func (p *pod) open(context.Context) (io.ReadWriteCloser, error) {
	near, far := net.Pipe()
	p.mu.Lock()
	p.opened++
	p.conns = append(p.conns, near, far)
	p.mu.Unlock()
	p.serving.Go(func() {
		server, err := sftp.NewServer(&gated{Conn: far, pod: p})
		if err != nil {
			p.t.Errorf("sftp server: %v", err)
			return
		}
		if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			p.t.Logf("sftp server: %v", err)
		}
		_ = server.Close()
	})
	if p.delay > 0 {
		return newLong(near, p.delay), nil
	}
	return near, nil
}

// gated lets nothing through to the server while the pod is stalled.
type gated struct {
	net.Conn
	pod *pod
}

func (g *gated) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.pod.mu.Lock()
	gate := g.pod.stalled
	g.pod.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return n, err
}

// stall lets nothing through from now on.
func (p *pod) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = make(chan struct{})
}

// resume ends a stall.
func (p *pod) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

// cut breaks all connections.
func (p *pod) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// sessions is how many were opened.
func (p *pod) sessions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

// long is a connection over a long way: what is written arrives a while later,
// any amount of it.
type long struct {
	net.Conn
	delay   time.Duration
	out, in chan parcel
	rest    parcel // what Read hasn't given out yet
	done    chan struct{}
	once    sync.Once
	copying sync.WaitGroup
}

type parcel struct {
	data []byte
	due  time.Time
	err  error
}

func newLong(c net.Conn, delay time.Duration) *long {
	l := &long{Conn: c, delay: delay, out: make(chan parcel, 1<<12), in: make(chan parcel, 1<<12), done: make(chan struct{})}
	l.copying.Go(func() {
		for {
			p, ok := l.take(l.out)
			if !ok {
				return
			}
			if _, err := c.Write(p.data); err != nil {
				return
			}
		}
	})
	l.copying.Go(func() {
		for {
			buf := make([]byte, 64<<10)
			n, err := c.Read(buf)
			select {
			case l.in <- parcel{buf[:n], time.Now().Add(delay), err}:
			case <-l.done:
				return
			}
			if err != nil {
				return
			}
		}
	})
	return l
}

// take waits for the next parcel to be due.
func (l *long) take(from chan parcel) (parcel, bool) {
	select {
	case p := <-from:
		timer := time.NewTimer(time.Until(p.due))
		defer timer.Stop()
		select {
		case <-timer.C:
			return p, true
		case <-l.done:
			return parcel{}, false
		}
	case <-l.done:
		return parcel{}, false
	}
}

func (l *long) Write(b []byte) (int, error) {
	select {
	case l.out <- parcel{data: bytes.Clone(b), due: time.Now().Add(l.delay)}:
		return len(b), nil
	case <-l.done:
		return 0, net.ErrClosed
	}
}

func (l *long) Read(b []byte) (int, error) {
	for len(l.rest.data) == 0 {
		if l.rest.err != nil {
			return 0, l.rest.err
		}
		p, ok := l.take(l.in)
		if !ok {
			return 0, net.ErrClosed
		}
		l.rest = p
	}
	n := copy(b, l.rest.data)
	l.rest.data = l.rest.data[n:]
	return n, nil
}

func (l *long) Close() error {
	l.once.Do(func() { close(l.done) })
	err := l.Conn.Close()
	l.copying.Wait()
	return err
}

// mounted mounts dir of the pod, or skips where that can't be.
func mounted(t testing.TB, p *pod, dir string, change func(*Config)) string {
	t.Helper()
	if err := available(); err != nil {
		t.Skipf("can't mount here: %v", err)
	}
	cfg := Config{SFTP: p.open, Root: dir, Mountpoint: t.TempDir(), UID: os.Getuid(), GID: os.Getgid()}
	if change != nil {
		change(&cfg)
	}
	m, err := FUSE(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return cfg.Mountpoint
}
