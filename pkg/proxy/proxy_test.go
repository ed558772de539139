package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is a running agent and what a client needs to reach it.
type agent struct {
	keys Keys
	addr netip.AddrPort
	stop context.CancelCauseFunc
	done chan struct{}
	err  error // set before done is closed

	mu  sync.Mutex
	ncs []net.Conn
	cut bool
}

// startAgent runs an agent for the time of the test.
func startAgent(t testing.TB, change ...func(*ServerConfig)) *agent {
	t.Helper()
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := ServerConfig{HostKey: keys.HostKey, ClientPublic: keys.ClientPublic, Token: keys.Token, Grace: time.Minute, Drain: 100 * time.Millisecond, Version: "v0-test"}
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	a := &agent{keys: keys, addr: netip.MustParseAddrPort(l.Addr().String()), stop: cancel, done: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(a.done)
		a.err = newServer(cfg).serve(ctx, l)
	})
	t.Cleanup(func() {
		cancel(errors.New("the test is over"))
		wg.Wait()
	})
	return a
}

func (a *agent) dial(ctx context.Context) (net.Conn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cut {
		return nil, errors.New("the line is cut")
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", a.addr.String())
	if err == nil {
		a.ncs = append(a.ncs, nc)
	}
	return nc, err
}

// breakLine closes all transports; cut says that no new ones can be made.
func (a *agent) breakLine(cut bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut = cut
	for _, nc := range a.ncs {
		_ = nc.Close()
	}
	a.ncs = nil
}

// mendLine lets transports be made again.
func (a *agent) mendLine() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut = false
}

// connect connects a client for the time of the test.
func (a *agent) connect(t testing.TB) *Client {
	t.Helper()
	c, err := Connect(testContext(t), ClientConfig{Dial: a.dial, Keys: a.keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// podListener is a TCP server in the pod.
func podListener(t testing.TB) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, netip.MustParseAddrPort(l.Addr().String())
}

// outbound returns a flow from the client into the pod.
func outbound(t testing.TB, c *Client) (client, pod net.Conn) {
	t.Helper()
	l, addr := podListener(t)
	client, err := c.DialContext(testContext(t), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if pod, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = pod.Close()
	})
	return client, pod
}

// inbound returns a flow from the pod to the client.
func inbound(t testing.TB, c *Client) (client, pod net.Conn) {
	t.Helper()
	l, err := c.Listen(testContext(t), loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if pod, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if client, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = pod.Close()
	})
	return client, pod
}

func TestConnConforms(t *testing.T) {
	t.Parallel()
	for name, flow := range flows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startAgent(t).connect(t)
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				client, pod := flow(t, c)
				return client, pod, func() { _ = client.Close(); _ = pod.Close() }, nil
			})
		})
	}
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	c := a.connect(t)
	if err := c.Goodbye(testContext(t)); err != nil {
		t.Fatal(err)
	}
	<-a.done
	if a.err != nil {
		t.Errorf("the agent ended with %v after a goodbye", a.err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("Wait after a goodbye: %v", err)
	}
}
