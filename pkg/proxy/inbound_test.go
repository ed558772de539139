package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
)

func TestListen(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	l, err := c.Listen(testContext(t), loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if _, err := c.Listen(testContext(t), netip.MustParseAddrPort(addr)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listening on a port twice: %v, want EADDRINUSE", err)
	}
	caller, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != caller.LocalAddr().String() || conn.LocalAddr().String() != addr {
		t.Errorf("accepted %v from %v, want %v from %v", conn.LocalAddr(), conn.RemoteAddr(), addr, caller.LocalAddr())
	}
	checkEcho(t, caller, conn)

	// Close closes the pod's socket, and unblocks Accept, but not what was accepted.
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept at the end: %v", err)
		}
	})
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("calling a closed listener: %v, want ECONNREFUSED", err)
	}
	checkEcho(t, caller, conn)
	again, err := c.Listen(testContext(t), netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatalf("listening again: %v", err)
	}
	_ = again.Close()
}

// TestListenUnaccepted closes a listener while a caller waits: that one is reset.
func TestListenUnaccepted(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	l, err := c.Listen(testContext(t), loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	caller, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	_ = l.Close()
	if _, err := io.ReadAll(caller); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the caller read %v, want ECONNRESET", err)
	}
}

func TestListenErrors(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	addr := netip.MustParseAddrPort("192.0.2.1:80")
	_, err := c.Listen(testContext(t), addr)
	if !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("listening on an address the pod doesn't have: %v", err)
	}
	_, err = c.ListenUDP(testContext(t), addr)
	if !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("binding an address the pod doesn't have: %v", err)
	}
}

// TestListenDualStack listens as --expose does: on all addresses of both families.
func TestListenDualStack(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	l, err := c.Listen(testContext(t), netip.MustParseAddrPort("[::]:0"))
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	caller, err := net.Dial("tcp4", loopback(port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != caller.LocalAddr().String() {
		t.Errorf("RemoteAddr is %v, want %v", got, caller.LocalAddr())
	}
}
