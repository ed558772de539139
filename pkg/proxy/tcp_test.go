package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestDialErrors(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	l, closed := podListener(t)
	_ = l.Close()
	for _, tt := range []struct {
		addr netip.AddrPort
		want error
	}{
		{closed, syscall.ECONNREFUSED},
		{netip.MustParseAddrPort("255.255.255.255:80"), syscall.ENETUNREACH}, // what Linux says without broadcast
		{netip.MustParseAddrPort("127.0.0.1:0"), syscall.ECONNREFUSED},
	} {
		_, here := net.Dial("tcp", tt.addr.String())
		_, there := c.DialContext(testContext(t), "tcp", tt.addr)
		if !errors.Is(there, tt.want) {
			t.Errorf("dial %v from the pod: %v; from here: %v", tt.addr, there, here)
		}
		var op *net.OpError
		if !errors.As(there, &op) || op.Op != "dial" {
			t.Errorf("dial %v: %v is no *net.OpError of a dial", tt.addr, there)
		}
	}
	if _, err := c.DialContext(testContext(t), "unix", closed); err == nil {
		t.Error("dial unix: want an error")
	}
}

// TestDialCancelled ends a dial that nobody answers; the agent is to give it up too, or the goroutine check fails.
func TestDialCancelled(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	full, addr := fullListener(t)
	defer full()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.DialContext(ctx, "tcp", addr); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial with a deadline: %v", err)
	}
	// The tunnel is as usable as before.
	client, pod := outbound(t, c)
	checkEcho(t, client, pod)
}

// fullListener returns the address of a socket whose backlog is full, so that the kernel drops SYNs.
func fullListener(t *testing.T) (done func(), addr netip.AddrPort) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr = loopback(uint16(sa.(*syscall.SockaddrInet4).Port))
	var conns []net.Conn
	for {
		conn, err := net.DialTimeout("tcp", addr.String(), 200*time.Millisecond)
		if err != nil {
			break
		}
		conns = append(conns, conn)
	}
	return func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
		_ = syscall.Close(fd)
	}, addr
}

// checkEcho sends a word each way.
func checkEcho(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, ends := range [][2]net.Conn{{a, b}, {b, a}} {
		if _, err := ends[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(ends[1], buf); err != nil || string(buf) != "hello" {
			t.Fatalf("read %q, %v", buf, err)
		}
	}
}

// flows are the two ways a flow comes about.
var flows = map[string]func(testing.TB, *Client) (client, pod net.Conn){"outbound": outbound, "inbound": inbound}

func TestHalfClose(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	for name, flow := range flows {
		client, pod := flow(t, c)
		for i, ends := range [][2]net.Conn{{client, pod}, {pod, client}} {
			if _, err := ends[0].Write([]byte("last words")); err != nil {
				t.Fatal(err)
			}
			if err := ends[0].(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(ends[1])
			if string(got) != "last words" || err != nil {
				t.Errorf("%s %d: read %q, %v", name, i, got, err)
			}
		}
	}
}

// TestResetFromClient resets a flow at the client, with both ends waiting.
func TestResetFromClient(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	for name, flow := range flows {
		client, pod := flow(t, c)
		checkEcho(t, client, pod)
		if err := client.(interface{ Reset() error }).Reset(); err != nil {
			t.Fatal(err)
		}
		if _, err := pod.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the pod's end read %v, want ECONNRESET", name, err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the client's end read %v, want net.ErrClosed", name, err)
		}
	}
}

// TestResetFromPod resets a flow at the pod, with the client reading by each of its ways.
func TestResetFromPod(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	for name, flow := range flows {
		for _, how := range []string{"Read", "WriteTo"} {
			client, pod := flow(t, c)
			checkEcho(t, client, pod)
			if err := pod.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			_ = pod.Close()
			var err error
			if how == "Read" {
				_, err = client.Read(make([]byte, 1))
			} else {
				_, err = client.(io.WriterTo).WriteTo(io.Discard)
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: %s returned %v, want ECONNRESET", name, how, err)
			}
			for err = nil; err == nil; {
				_, err = client.Write([]byte("more"))
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("%s: Write returned %v", name, err)
			}
		}
	}
}

// TestCloseSendsAll closes the client's end with much under way.
func TestCloseSendsAll(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	for name, flow := range flows {
		client, pod := flow(t, c)
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB, more than a window
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := client.Write(data); err != nil {
				t.Error(err)
			}
			_ = client.Close()
		})
		got, err := io.ReadAll(pod)
		if !bytes.Equal(got, data) || err != nil {
			t.Errorf("%s: %d of %d bytes arrived, %v", name, len(got), len(data), err)
		}
		wg.Wait()
	}
}

// TestBackPressure stops reading at one end: the writer must stop, other flows go on, and nothing is lost.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	for name, flow := range flows {
		for _, from := range []string{"client", "pod"} {
			client, pod := flow(t, c)
			w, r := client, pod
			if from == "pod" {
				w, r = pod, client
			}
			if err := w.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			total, chunk := 0, make([]byte, 256<<10)
			for {
				n, err := w.Write(chunk)
				total += n
				if err != nil {
					break
				}
				if total > 256<<20 {
					t.Fatalf("%s: the %s's writer does not stop", name, from)
				}
			}
			a, b := outbound(t, c)
			checkEcho(t, a, b)
			_ = w.(interface{ CloseWrite() error }).CloseWrite()
			if n, err := io.Copy(io.Discard, r); err != nil || n != int64(total) {
				t.Errorf("%s from %s: %d of %d bytes arrived: %v", name, from, n, total, err)
			}
		}
	}
}

// TestManyFlows opens many flows at once, each of which sends and receives; the line breaks meanwhile.
func TestManyFlows(t *testing.T) {
	t.Parallel()
	const count = 2000
	a := startAgent(t)
	c := a.connect(t)
	l, addr := podListener(t)
	var pods, clients sync.WaitGroup
	pods.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			pods.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	})
	ctx := testContext(t)
	slots := make(chan struct{}, 400) // descriptors are not ours alone
	for i := range count {
		clients.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			conn, err := c.DialContext(ctx, "tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			word := bytes.Repeat([]byte{byte(i)}, 1000+i)
			if _, err := conn.Write(word); err != nil {
				t.Error(err)
			}
			_ = conn.(*Conn).CloseWrite()
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, word) {
				t.Errorf("flow %d: %d of %d bytes came back: %v", i, len(got), len(word), err)
			}
			if i%500 == 250 {
				a.breakLine(false)
			}
		})
	}
	clients.Wait()
	_ = l.Close()
	pods.Wait()
}
