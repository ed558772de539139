package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// podEcho is a UDP server in the pod that sends back what it gets.
func podEcho(t testing.TB) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, addr, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], addr)
		}
	})
	t.Cleanup(func() {
		_ = pc.Close()
		wg.Wait()
	})
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

// sizes are those of datagrams that something is special about: none, one byte, around a usual MTU, the largest.
var sizes = []int{0, 1, 1400, 2048, 2049, 9000, 65507}

func TestDialUDP(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	conn, err := c.DialContext(testContext(t), "udp", podEcho(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 1<<16)
	for _, size := range sizes {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := conn.Write(sent); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], sent) {
			t.Errorf("sent %d bytes, received %d, %v", size, n, err)
		}
	}
	if _, err := conn.Write(make([]byte, maxDatagram+1)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a datagram that is too long for any network: %v, want EMSGSIZE", err)
	}
	// Too long for IPv4 only: the pod's kernel says so.
	if _, err := conn.Write(make([]byte, 65508)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(buf); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a datagram that is too long for IPv4: %v, want EMSGSIZE", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read after the deadline: %v", err)
	}
}

// TestDialUDPRefused sends to a port where nobody is, as a connected socket would find out.
func TestDialUDPRefused(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(pc.LocalAddr().String())
	_ = pc.Close()
	conn, err := c.DialContext(testContext(t), "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 { // the flow lives on after an error
		if _, err := conn.Write([]byte("anybody?")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Read: %v, want ECONNREFUSED", err)
		}
	}
}

func TestListenUDP(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	pc, err := c.ListenUDP(testContext(t), loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, err := c.ListenUDP(testContext(t), netip.MustParseAddrPort(pc.LocalAddr().String())); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("binding a port twice: %v, want EADDRINUSE", err)
	}
	caller, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	buf := make([]byte, 1<<16)
	for _, size := range sizes {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := caller.Write(sent); err != nil {
			t.Fatal(err)
		}
		n, from, err := pc.ReadFrom(buf)
		if err != nil || !bytes.Equal(buf[:n], sent) || from.String() != caller.LocalAddr().String() {
			t.Errorf("sent %d bytes, received %d from %v, %v", size, n, from, err)
		}
		if _, err := pc.WriteTo(sent, from); err != nil {
			t.Fatal(err)
		}
		if n, err = caller.Read(buf); err != nil || !bytes.Equal(buf[:n], sent) {
			t.Errorf("answered with %d bytes, received %d, %v", size, n, err)
		}
	}
	_ = pc.Close()
	if _, _, err := pc.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrom after Close: %v", err)
	}
}

func FuzzReadDatagram(f *testing.F) {
	f.Add(appendDatagram(nil, []byte("hello")))
	f.Add(datagramErrorFrame("ECONNREFUSED"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := bytes.NewReader(wire)
		p, name, err := readDatagram(r, nil)
		if err != nil {
			if errors.Is(err, io.EOF) && len(wire) >= 2 {
				t.Errorf("%x: the end in the middle is no ordinary end", wire)
			}
			return
		}
		used := wire[:len(wire)-r.Len()]
		again := appendDatagram(nil, p)
		if len(wire) > 1 && wire[0] == 0xff && wire[1] == 0xff {
			again = datagramErrorFrame(name)
		}
		if !bytes.Equal(again, used) {
			t.Errorf("%x was read as %x, %q, which is written as %x", used, p, name, again)
		}
	})
}

func FuzzCutAddr(f *testing.F) {
	f.Add(marshalAddr(netip.MustParseAddrPort("192.0.2.1:53")))
	f.Add(marshalAddr(netip.MustParseAddrPort("[2001:db8::1%eth0]:53")))
	f.Fuzz(func(t *testing.T, wire []byte) {
		a, rest, err := cutAddr(wire)
		if err != nil {
			return
		}
		b, rest2, err := cutAddr(append(marshalAddr(a), rest...))
		if err != nil || a != b || !bytes.Equal(rest, rest2) {
			t.Errorf("%x is %v and %x, and written again %v and %x, %v", wire, a, rest, b, rest2, err)
		}
	})
}
