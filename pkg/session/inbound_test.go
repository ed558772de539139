package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is a localEnd and podEnd on this machine's loopback: what the pod
// would listen on is a port that the machine chooses.
type machine struct {
	mu        sync.Mutex
	opened    chan netip.AddrPort // where the pod listens, each time it does
	local     net.Listener        // the last that listened
	listening bool
}

func (m *machine) Listening(uint16) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listening
}

func (m *machine) Dial(ctx context.Context, _ uint16) (net.Conn, error) {
	m.mu.Lock()
	local := m.local
	m.mu.Unlock()
	if local == nil {
		return nil, errors.New("nobody listens")
	}
	return new(net.Dialer).DialContext(ctx, "tcp", local.Addr().String())
}

func (m *machine) Listen(ctx context.Context, _ netip.AddrPort) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err == nil {
		m.opened <- netip.MustParseAddrPort(l.Addr().String())
	}
	return l, err
}

// set makes l what listens; nil: nobody is seen to, but connections are still
// taken, as of a server that shuts down in order.
func (m *machine) set(l net.Listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listening = l != nil
	if l != nil {
		m.local = l
	}
}

// said collects a session's lines.
type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}
func (s *said) Tell(line string)    { s.add(line) }
func (s *said) Waiting(line string) { s.add(line) }
func (s *said) Warn(line string)    { s.add(line) }
func (s *said) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

// echo answers each connection of l's with what it gets, in upper case, once
// that has ended.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		text, _ := io.ReadAll(c)
		_, _ = io.WriteString(c, strings.ToUpper(string(text)))
		_ = c.Close()
	}
}

func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { echo(l) })
	t.Cleanup(func() { _ = l.Close(); served.Wait() })
	return l
}

func startInbound(t *testing.T, m *machine) (*inbound, *said) {
	t.Helper()
	ev := new(said)
	in := newInbound(m, m, []inboundPort{{at: netip.AddrPortFrom(anyAddress, 80), local: 8080}}, ev, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := in.run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return in, ev
}

func ask(t *testing.T, at netip.AddrPort, text string) string {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestInboundOpensWithTheProcess(t *testing.T) {
	t.Parallel()
	m := &machine{opened: make(chan netip.AddrPort, 10)}
	in, ev := startInbound(t, m)

	if got := in.missing(); len(got) != 1 || got[0] != plan.Port(8080) {
		t.Errorf("missing are %v before anything listens", got)
	}
	m.set(listenLocal(t))
	first := <-m.opened
	if got := ask(t, first, "hello"); got != "HELLO" {
		t.Errorf("got %q, half closed", got)
	}
	if err := in.allOpen(t.Context()); err != nil {
		t.Fatal(err)
	}

	m.set(nil)
	for {
		all, changed := in.state()
		if !all {
			break
		}
		<-changed
	}
	waitRefused(t, first)

	m.set(listenLocal(t))
	if got := ask(t, <-m.opened, "again"); got != "AGAIN" {
		t.Errorf("got %q after the process listened again", got)
	}
	if !strings.Contains(ev.all(), "nothing listens on 127.0.0.1:8080 any more") {
		t.Errorf("the user was told %q", ev.all())
	}
}

// waitRefused waits until nobody listens at an address.
func waitRefused(t *testing.T, at netip.AddrPort) {
	t.Helper()
	for {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", at.String())
		if refused(err) {
			return
		}
		if err == nil {
			_ = c.Close()
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("%v is still listened on", at)
		}
	}
}

// A server that has stopped to listen may still answer who is connected.
func TestInboundKeepsConnections(t *testing.T) {
	t.Parallel()
	m := &machine{opened: make(chan netip.AddrPort, 10)}
	in, _ := startInbound(t, m)
	m.set(listenLocal(t))
	at := <-m.opened
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "late"); err != nil {
		t.Fatal(err)
	}
	m.set(nil)
	for all, changed := in.state(); all; all, changed = in.state() {
		<-changed
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || string(answer) != "LATE" {
		t.Errorf("got %q, %v on port %s", answer, err, strconv.Itoa(int(at.Port())))
	}
}
