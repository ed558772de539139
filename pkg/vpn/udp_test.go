package vpn

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// udpEcho answers each datagram with itself.
func udpEcho(t testing.TB) net.Addr {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	})
	t.Cleanup(func() {
		_ = c.Close()
		serving.Wait()
	})
	return c.LocalAddr()
}

// roundTrip sends a datagram until it comes back: UDP may lose some.
func roundTrip(t testing.TB, c net.Conn, datagram []byte) {
	t.Helper()
	buf := make([]byte, maxDatagram)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := c.Write(datagram); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			continue
		}
		if !bytes.Equal(buf[:n], datagram) {
			t.Fatalf("got %d bytes back, want the %d sent", n, len(datagram))
		}
		return
	}
	t.Fatal("no datagram came back")
}

func TestUDP(t *testing.T) {
	t.Parallel()
	c := start(t, toLoopback(udpEcho(t)))
	for _, to := range []netip.AddrPort{cluster4, cluster6} {
		conn := c.dialUDP(t, to)
		roundTrip(t, conn, []byte("hello"))
		roundTrip(t, conn, bytes.Repeat([]byte("x"), 60_000))
		roundTrip(t, conn, nil)
	}
}

func TestUDPGetsThePodsAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pod error
		to  netip.AddrPort
		// want is the type and code of the ICMP message, which the kernel makes
		// an errno of.
		want [2]byte
	}{
		{syscall.ECONNREFUSED, cluster4, [2]byte{3, 3}},
		{syscall.EHOSTUNREACH, cluster4, [2]byte{3, 1}},
		{syscall.ENETUNREACH, cluster4, [2]byte{3, 0}},
		{syscall.EPERM, cluster4, [2]byte{3, 13}},
		{syscall.ECONNREFUSED, cluster6, [2]byte{1, 4}},
		{syscall.EHOSTUNREACH, cluster6, [2]byte{1, 3}},
		{syscall.ENETUNREACH, cluster6, [2]byte{1, 0}},
		{syscall.EPERM, cluster6, [2]byte{1, 1}},
	} {
		near, wire := newWire()
		if _, err := startClient(t, near).dialUDP(t, tt.to).Write([]byte("datagram")); err != nil {
			t.Fatal(err)
		}
		device := startEngine(t, Config{Dialer: refusing(tt.pod)})
		datagram := <-wire.in
		_, _ = device.Write(datagram)
		got := message(t, device)
		if [2]byte(got[:2]) != tt.want {
			t.Errorf("%s, the pod said %v: ICMP type and code %v, want %v", tt.to, tt.pod, got[:2], tt.want)
		}
		if !bytes.Equal(got[8:], datagram) {
			t.Errorf("%s: the message quotes %x, want %x", tt.to, got[8:], datagram)
		}
	}
}

// A closed port in the pod shows after the connect, when the first datagram
// has come back as an error.
func TestUDPRefusedLater(t *testing.T) {
	t.Parallel()
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	conn := start(t, toLoopback(closed.LocalAddr())).dialUDP(t, cluster6)
	err = nil
	for end := time.Now().Add(patience); err == nil && time.Now().Before(end); {
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = conn.Read(make([]byte, 1))
		_, err = conn.Write([]byte("x")) // where gVisor tells of it
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Err.Error() != (&tcpip.ErrConnectionRefused{}).String() {
		t.Errorf("write: %v, want connection refused", err)
	}
}

// watched tells when it is closed.
type watched struct {
	net.Conn
	closed chan<- struct{}
	once   *sync.Once
}

func (c watched) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func TestIdleUDPFlowIsClosed(t *testing.T) {
	t.Parallel()
	echo := udpEcho(t)
	flows := make(chan chan struct{}, 10)
	c := startClient(t, startEngine(t, Config{
		UDPIdle: 50 * time.Millisecond,
		Dialer: pod{dial: func(ctx context.Context, network string, _ netip.AddrPort) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, echo.String())
			closed := make(chan struct{})
			flows <- closed
			return watched{conn, closed, new(sync.Once)}, err
		}},
	}))
	conn := c.dialUDP(t, cluster4)
	for range 2 { // after the first flow has gone, the same socket gets another
		roundTrip(t, conn, []byte("hello"))
		select {
		case <-<-flows:
		case <-patient(t).Done():
			t.Fatal("the flow is still open")
		}
	}
}
