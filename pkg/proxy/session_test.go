package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/telepresence/telepresence/pkg/proxy/resume"
)

// TestKeysArePinned changes one secret after the other: each alone must be enough to keep the two apart.
func TestKeysArePinned(t *testing.T) {
	t.Parallel()
	other, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Keys)
		want   string
	}{
		{"token", func(k *Keys) { k.Token = other.Token }, resume.ErrDenied.Error()},
		{"host key", func(k *Keys) { k.HostPublic = other.HostPublic }, "host key mismatch"},
		{"client key", func(k *Keys) { k.ClientKey = other.ClientKey }, "unable to authenticate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var log lockedBuffer
			a := startAgent(t, func(cfg *ServerConfig) {
				cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			keys := a.keys
			tt.change(&keys)
			c, err := Connect(testContext(t), ClientConfig{Dial: a.dial, Keys: keys})
			if err == nil {
				_ = c.Close()
				t.Fatal("connected")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Connect: %v, want %q in it", err, tt.want)
			}
			// The true client is not kept out by that.
			x, y := outbound(t, a.connect(t))
			checkEcho(t, x, y)
			for _, secret := range [][]byte{a.keys.Token, a.keys.HostKey, keys.Token} {
				if bytes.Contains(log.bytes(), bytes.TrimSpace(secret)) {
					t.Errorf("a secret is in the log:\n%s", log.bytes())
				}
			}
		})
	}
}

// lockedBuffer is what a log may be written to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

// TestOneClientAtATime lets a second client come while the first is there, and after it was killed.
func TestOneClientAtATime(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	a.connect(t)
	if _, err := Connect(testContext(t), ClientConfig{Dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", a.addr.String())
	}, Keys: a.keys}); !errors.Is(err, resume.ErrBusy) {
		t.Errorf("a second client: %v, want ErrBusy", err)
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	c := a.connect(t)
	ctx, port := testContext(t), a.addr.Port()
	if err := Ready(ctx, port); !errors.Is(err, ErrNotReady) {
		t.Errorf("at first: %v", err)
	}
	for _, ready := range []bool{true, false, true} {
		if err := c.SetReady(ctx, ready); err != nil {
			t.Fatal(err)
		}
		if err := Ready(ctx, port); (err == nil) != ready {
			t.Errorf("set to %v: %v", ready, err)
		}
	}
	_ = c.Close()
	_ = waitFor(t, func() error { return Ready(ctx, port) })
}

// TestNotReadyWhileAway cuts the line for longer than the client may be away, and mends it.
func TestNotReadyWhileAway(t *testing.T) {
	t.Parallel()
	a := startAgent(t, func(cfg *ServerConfig) { cfg.Away = 50 * time.Millisecond })
	c := a.connect(t)
	ctx, port := testContext(t), a.addr.Port()
	if err := c.SetReady(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := Ready(ctx, port); err != nil {
		t.Fatal(err)
	}
	a.breakLine(true)
	if err := waitFor(t, func() error { return Ready(ctx, port) }); !errors.Is(err, ErrNotReady) {
		t.Errorf("while the client is away: %v", err)
	}
	a.breakLine(false)
	_ = waitFor(t, func() error {
		if Ready(ctx, port) != nil {
			return nil
		}
		return io.EOF // it is ready again
	})
}

func TestReadyWithoutAgent(t *testing.T) {
	t.Parallel()
	if err := Ready(testContext(t), 1); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Ready where no agent is: %v", err)
	}
}

func TestNoClient(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"never came", "went without a goodbye", "lost its line"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			a := startAgent(t, func(cfg *ServerConfig) { cfg.Grace = 3 * time.Second })
			if how != "never came" {
				c := a.connect(t)
				a.breakLine(how == "lost its line")
				if how == "went without a goodbye" {
					_ = c.Close()
				}
			}
			<-a.done
			if !errors.Is(a.err, ErrNoClient) {
				t.Errorf("the agent ended with %v", a.err)
			}
		})
	}
}

func TestEnding(t *testing.T) {
	t.Parallel()
	a := startAgent(t, func(cfg *ServerConfig) { cfg.Drain = time.Minute })
	c := a.connect(t)
	client, pod := outbound(t, c)
	why := errors.New("the pod is deleted")
	a.stop(why)
	if err := c.Wait(); err == nil || !strings.Contains(err.Error(), why.Error()) {
		t.Errorf("Wait: %v, want %v", err, why)
	}
	checkEcho(t, client, pod) // flows go on
	if err := c.Goodbye(testContext(t)); err != nil {
		t.Error(err)
	}
	<-a.done
	if !errors.Is(a.err, why) {
		t.Errorf("the agent ended with %v", a.err)
	}
}

// TestTunnelOutlivesLine breaks the line and repairs it: Down and Up are called, flows go on.
func TestTunnelOutlivesLine(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	var downs, ups atomic.Int32
	up := make(chan struct{}, 1)
	c, err := Connect(testContext(t), ClientConfig{
		Dial: a.dial,
		Keys: a.keys,
		Down: func(error) { downs.Add(1) },
		Up: func() {
			ups.Add(1)
			up <- struct{}{}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out, outPod := outbound(t, c)
	in, inPod := inbound(t, c)
	a.breakLine(false)
	<-up
	checkEcho(t, out, outPod)
	checkEcho(t, in, inPod)
	if downs.Load() != 1 || ups.Load() != 1 {
		t.Errorf("%d times down, %d times up", downs.Load(), ups.Load())
	}
}

// TestTunnelLost cuts the line for good: flows end by a reset at both ends, and Wait says why.
func TestTunnelLost(t *testing.T) {
	t.Parallel()
	a := startAgent(t, func(cfg *ServerConfig) { cfg.Grace = 3 * time.Second })
	c, err := Connect(testContext(t), ClientConfig{Dial: a.dial, Keys: a.keys, Grace: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client, pod := outbound(t, c)
	a.breakLine(true)
	for name, end := range map[string]io.Reader{"client": client, "pod": pod} {
		if _, err := end.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the %s's end read %v, want ECONNRESET", name, err)
		}
	}
	if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "the line is cut") {
		t.Errorf("Wait: %v, want the reason", err)
	}
	if _, err := c.DialContext(testContext(t), "tcp", a.addr); err == nil {
		t.Error("dialled through a lost tunnel")
	}
}

// TestConnectWaitsForAgent dials something that hangs up at first, as a port-forward does before the agent listens.
func TestConnectWaitsForAgent(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	var tries atomic.Int32
	c, err := Connect(testContext(t), ClientConfig{Keys: a.keys, Dial: func(ctx context.Context) (net.Conn, error) {
		if tries.Add(1) <= 2 {
			x, y := net.Pipe()
			_ = y.Close()
			return x, nil
		}
		return a.dial(ctx)
	}})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	why := errors.New("forbidden")
	_, err = Connect(testContext(t), ClientConfig{Keys: a.keys, Dial: func(context.Context) (net.Conn, error) { return nil, why }})
	if !errors.Is(err, why) {
		t.Errorf("Connect: %v, want the dialler's error at once", err)
	}
}

// TestAway takes a client's line away for longer than callers should wait, and gives it back: meanwhile the pod is not
// ready, who waits is reset, who comes is refused; afterwards it is as before, and flows of before go on.
func TestAway(t *testing.T) {
	t.Parallel()
	a := startAgent(t, func(cfg *ServerConfig) { cfg.Away = 300 * time.Millisecond })
	c := a.connect(t)
	ctx, port := testContext(t), a.addr.Port()
	if err := c.SetReady(ctx, true); err != nil {
		t.Fatal(err)
	}
	l, err := c.Listen(ctx, loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	call := func() (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String()) }
	before, err := call()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	here, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	goesThrough(t, before, here, "before")

	a.breakLine(true)
	if err := Ready(ctx, port); err != nil {
		t.Errorf("just after the cut: %v", err)
	}
	refusedWhileAway(t, call)
	if err := Ready(ctx, port); !errors.Is(err, ErrNotReady) {
		t.Errorf("while the client is away: %v", err)
	}

	a.mendLine()
	_ = waitFor(t, func() error {
		if err := Ready(ctx, port); err == nil {
			return errors.New("as it should be")
		}
		return nil
	})
	goesThrough(t, here, before, "after")
	servedAgain(t, call, l)
}

// refusedWhileAway calls while the client is away: who waits is reset, and who comes later is refused.
func refusedWhileAway(t *testing.T, call func() (net.Conn, error)) {
	t.Helper()
	waiting, err := call()
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if _, err := io.ReadAll(waiting); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who waited read %v, want ECONNRESET", err)
	}
	_ = waitFor(t, func() error {
		nc, err := call()
		if err == nil {
			_ = nc.Close()
		}
		return err
	})
}

// servedAgain calls when the client is back.
func servedAgain(t *testing.T, call func() (net.Conn, error), l net.Listener) {
	t.Helper()
	var after net.Conn
	_ = waitFor(t, func() (err error) {
		if after, err = call(); err == nil {
			return errors.New("as it should be")
		}
		return nil
	})
	defer after.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for { // who was reset may come first: its end is all there is of it
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(nc, nc) // fails for who was reset
			_ = nc.Close()
		}
	})
	goesThrough(t, after, after, "anew")
	_ = after.Close()
}

// goesThrough sends a word into one end and wants it at the other.
func goesThrough(t *testing.T, in, out net.Conn, word string) {
	t.Helper()
	if _, err := in.Write([]byte(word)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(out, got); err != nil || string(got) != word {
		t.Fatalf("read %q, %v, want %q", got, err, word)
	}
}
