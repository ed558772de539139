package vpn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// listen runs serve for each connection to a server on loopback.
func listen(t testing.TB, serve func(*net.TCPConn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(patience))
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr()
}

func mustDial(t testing.TB, c client, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := c.dialTCP(patient(t), to)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestConnectGetsThePodsAnswer(t *testing.T) {
	t.Parallel()
	both, v4 := []netip.AddrPort{cluster4, cluster6}, []netip.AddrPort{cluster4}
	for _, tt := range []struct {
		pod  error
		to   []netip.AddrPort
		want tcpip.Error
	}{
		{syscall.ECONNREFUSED, both, &tcpip.ErrConnectionRefused{}},
		{syscall.ENETUNREACH, both, &tcpip.ErrNetworkUnreachable{}},
		{syscall.EAFNOSUPPORT, both, &tcpip.ErrNetworkUnreachable{}},
		// gVisor, as a client, does not know ICMPv6 address unreachable;
		// TestKernel has it.
		{syscall.EHOSTUNREACH, v4, &tcpip.ErrHostUnreachable{}},
		{errors.New("the tunnel is gone"), v4, &tcpip.ErrHostUnreachable{}},
	} {
		for _, to := range tt.to {
			t.Run(tt.pod.Error()+" "+to.String(), func(t *testing.T) {
				t.Parallel()
				_, err := start(t, refusing(tt.pod)).dialTCP(patient(t), to)
				var op *net.OpError
				if !errors.As(err, &op) || op.Err.Error() != tt.want.String() {
					t.Errorf("connect: %v, want %s", err, tt.want)
				}
			})
		}
	}
}

func TestConnectWaitsForThePod(t *testing.T) {
	t.Parallel()
	echo := listen(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	asked, answer := make(chan netip.AddrPort), make(chan struct{})
	c := start(t, pod{dial: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
		asked <- addr
		<-answer
		return new(net.Dialer).DialContext(ctx, network, echo.String())
	}})
	connected := make(chan error, 1)
	var dialing sync.WaitGroup
	dialing.Go(func() {
		conn, err := c.dialTCP(patient(t), cluster4)
		if err == nil {
			_ = conn.Close()
		}
		connected <- err
	})
	defer dialing.Wait()
	if got := <-asked; got != cluster4 {
		t.Errorf("the pod was asked for %s, want %s", got, cluster4)
	}
	select {
	case err := <-connected:
		t.Fatalf("connect returned %v before the pod answered", err)
	default:
	}
	close(answer)
	if err := <-connected; err != nil {
		t.Errorf("connect: %v", err)
	}
}

// A time-out is silence: the client's own next SYN is a new question.
func TestTimeoutIsNotAnswered(t *testing.T) {
	t.Parallel()
	echo := listen(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	var asked atomic.Int32
	c := start(t, pod{dial: func(ctx context.Context, network string, _ netip.AddrPort) (net.Conn, error) {
		if asked.Add(1) == 1 {
			return nil, syscall.ETIMEDOUT
		}
		return new(net.Dialer).DialContext(ctx, network, echo.String())
	}})
	mustDial(t, c, cluster4)
	if n := asked.Load(); n != 2 {
		t.Errorf("the pod was asked %d times, want 2", n)
	}
}

func TestHalfClose(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	t.Run("the client ends first", func(t *testing.T) {
		t.Parallel()
		server := listen(t, func(c *net.TCPConn) {
			got, err := io.ReadAll(c) // until the client's end
			if err == nil && bytes.Equal(got, big) {
				_, _ = c.Write(big)
			}
		})
		conn := mustDial(t, start(t, toLoopback(server)), cluster6)
		if _, err := conn.Write(big); err != nil {
			t.Fatal(err)
		}
		closeWrite(conn)
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, big) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(big))
		}
	})
	t.Run("the pod ends first", func(t *testing.T) {
		t.Parallel()
		received := make(chan []byte, 1)
		server := listen(t, func(c *net.TCPConn) {
			_, _ = c.Write(big)
			_ = c.CloseWrite()
			got, _ := io.ReadAll(c)
			received <- got
		})
		conn := mustDial(t, start(t, toLoopback(server)), cluster4)
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, big) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(big))
		}
		if _, err := conn.Write(big); err != nil {
			t.Fatal(err)
		}
		closeWrite(conn)
		if got := <-received; !bytes.Equal(got, big) {
			t.Errorf("the pod got %d bytes, want %d", len(got), len(big))
		}
	})
}

func TestResetByThePod(t *testing.T) {
	t.Parallel()
	server := listen(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		reset(c)
	})
	conn := mustDial(t, start(t, toLoopback(server)), cluster4)
	_, _ = conn.Write([]byte("x"))
	_, err := conn.Read(make([]byte, 1))
	var op *net.OpError
	if !errors.As(err, &op) || op.Err.Error() != (&tcpip.ErrConnectionReset{}).String() {
		t.Errorf("read: %v, want a reset", err)
	}
}

func TestResetByTheClient(t *testing.T) {
	t.Parallel()
	for _, halfClosed := range []bool{false, true} {
		got := make(chan error, 1)
		server := listen(t, func(c *net.TCPConn) {
			_, _ = c.Write([]byte("x"))
			_, err := io.Copy(io.Discard, c)
			if halfClosed {
				for err == nil { // the end came; the reset shows when writing
					_, err = c.Write([]byte("y"))
				}
			}
			got <- err
		})
		c := start(t, toLoopback(server))
		conn := mustDial(t, c, cluster4)
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if halfClosed {
			closeWrite(conn)
		}
		for _, ep := range c.RegisteredEndpoints() {
			ep.Abort()
		}
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("half-closed %v: the pod's peer read %v, want a reset", halfClosed, err)
		}
	}
}

func TestSlowReaderStopsTheWriter(t *testing.T) {
	t.Parallel()
	const much = 256 << 20
	t.Run("in the pod", func(t *testing.T) {
		t.Parallel()
		far, engines := net.Pipe()
		conn := mustDial(t, start(t, pod{dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			return engines, nil
		}}), cluster4)
		n := writeUntilBlocked(t, conn, much)
		var rest sync.WaitGroup
		rest.Go(func() { closeWrite(conn) })
		defer rest.Wait()
		if got, err := io.CopyN(io.Discard, far, int64(n)); err != nil {
			t.Errorf("%d of %d bytes arrived: %v", got, n, err)
		}
		_ = far.Close()
	})
	t.Run("here", func(t *testing.T) {
		t.Parallel()
		far, engines := net.Pipe()
		conn := mustDial(t, start(t, pod{dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			return engines, nil
		}}), cluster4)
		n := writeUntilBlocked(t, far, much)
		if got, err := io.CopyN(io.Discard, conn, int64(n)); err != nil {
			t.Errorf("%d of %d bytes arrived: %v", got, n, err)
		}
		_ = far.Close()
	})
}

// writeUntilBlocked writes until nothing went on for a while, and returns how
// much was written.
func writeUntilBlocked(t *testing.T, c net.Conn, limit int) int {
	t.Helper()
	chunk := make([]byte, 64<<10)
	total := 0
	for total < limit {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(chunk)
		total += n
		if err != nil {
			_ = c.SetWriteDeadline(time.Time{})
			return total
		}
	}
	t.Fatalf("%d bytes were written and nobody reads", total)
	return 0
}

func TestThousandsAtOnce(t *testing.T) {
	t.Parallel()
	const n = 3000
	var waiting sync.WaitGroup // all are waiting for the pod at the same time
	waiting.Add(n)
	var echoes sync.WaitGroup
	t.Cleanup(echoes.Wait)
	c := start(t, pod{dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
		waiting.Done()
		waiting.Wait()
		far, engines := net.Pipe()
		echoes.Go(func() {
			_, _ = io.Copy(far, far)
			_ = far.Close()
		})
		return engines, nil
	}})
	var clients sync.WaitGroup
	defer clients.Wait()
	var failed atomic.Int32
	for range n {
		clients.Go(func() {
			conn, err := c.dialTCP(patient(t), cluster4)
			if err != nil {
				failed.Add(1)
				return
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(patience))
			word := []byte("hello")
			if _, err := conn.Write(word); err != nil {
				failed.Add(1)
				return
			}
			got := make([]byte, len(word))
			if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, word) {
				failed.Add(1)
			}
		})
	}
	clients.Wait()
	if f := failed.Load(); f > 0 {
		t.Errorf("%d of %d connections failed", f, n)
	}
}

// A port that the engine closed first can be used again.
func TestSamePortAgain(t *testing.T) {
	t.Parallel()
	server := listen(t, func(*net.TCPConn) {}) // closes at once
	c := start(t, toLoopback(server))
	for range 5 {
		conn := mustDial(t, c, cluster4)
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
}

func TestRunEndsWithOpenConnections(t *testing.T) {
	t.Parallel()
	blocked := make(chan struct{}, 1)
	far, engines := net.Pipe()
	defer func() { _ = far.Close() }()
	near, device := newWire()
	e, err := New(Config{Device: device, Dialer: pod{
		dial: func(ctx context.Context, _ string, addr netip.AddrPort) (net.Conn, error) {
			if addr == cluster6 {
				blocked <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return engines, nil
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(patient(t))
	done := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { done <- e.Run(ctx) })
	defer running.Wait()

	c := startClient(t, near)
	open := mustDial(t, c, cluster4)
	connecting := make(chan error, 1)
	running.Go(func() {
		_, err := c.dialTCP(patient(t), cluster6)
		connecting <- err
	})
	<-blocked
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read: %v, want a reset", err)
	}
	if err := <-connecting; err == nil {
		t.Error("connect succeeded when the engine had closed")
	}
}
