package vpn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// inNamespace tells this test binary that it runs in a network namespace of
// its own.
const inNamespace = "TELEPRESENCE_TEST_NETNS"

// namespaced runs the calling test again in a fresh network namespace, and
// returns true there.
func namespaced(t testing.TB) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	probe, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no TUN device to be had: %v", err)
	}
	_ = probe.Close()
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v"}
	if _, ok := t.(*testing.B); ok {
		args = []string{"-test.run=^$", "-test.bench=^" + t.Name() + "$"}
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("no namespace to be had: %v", err)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in its namespace: %v", err)
	}
	return false
}

// kernelDevice is a TUN device of this namespace with everything routed to it.
func kernelDevice(t testing.TB) tun.Device {
	t.Helper()
	device, err := tun.Open("tel%d", tun.DefaultMTU)
	if err != nil {
		t.Fatal(err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
		if l.Type() != "tuntap" {
			continue
		}
		for _, a := range []string{client4.String() + "/30", client6.String() + "/64"} {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				t.Fatal(err)
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(l, addr); err != nil {
				t.Fatal(err)
			}
		}
		for _, everywhere := range []string{"0.0.0.0/0", "::/0"} {
			dst, err := netlink.ParseIPNet(everywhere)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return device
}

// runOn runs an engine on the device until the test ends.
func runOn(t testing.TB, c Config) {
	t.Helper()
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// The kernel comes to the same errno here as the pod's did there.
func TestKernel(t *testing.T) {
	if !namespaced(t) {
		return
	}
	echo := listen(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	datagrams := udpEcho(t)
	answers := map[uint16]error{
		1: syscall.ECONNREFUSED, 2: syscall.EHOSTUNREACH, 3: syscall.ENETUNREACH,
	}
	runOn(t, Config{
		Device: kernelDevice(t), DNS: answerWith(1), DNSAddr: dnsAddr,
		Dialer: pod{dial: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			if err := answers[addr.Port()]; err != nil {
				return nil, fmt.Errorf("in the pod: %w", err)
			}
			server := echo
			if network == "udp" {
				server = datagrams
			}
			return new(net.Dialer).DialContext(ctx, network, server.String())
		}},
	})
	for _, host := range []netip.Addr{cluster4.Addr(), cluster6.Addr()} {
		for port, want := range answers {
			to := netip.AddrPortFrom(host, port).String()
			if _, err := net.Dial("tcp", to); !errors.Is(err, want) {
				t.Errorf("connect to %s: %v, want %v", to, err, want)
			}
		}
		// Of a datagram's fate, Linux tells a socket only that it was refused.
		checkRefusedUDP(t, netip.AddrPortFrom(host, 1).String())
		to := netip.AddrPortFrom(host, 80).String()
		c, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		checkEcho(t, c)
		u, err := net.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, u, bytes.Repeat([]byte("x"), 60_000))
		_ = u.Close()
	}
	checkResolver(t)
}

func checkRefusedUDP(t *testing.T, to string) {
	t.Helper()
	c, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("datagram to %s: %v, want connection refused", to, err)
	}
}

// checkEcho sends a few megabytes through an echo and closes c.
func checkEcho(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	big := bytes.Repeat([]byte("0123456789abcdef"), 4<<16)
	var writing sync.WaitGroup
	writing.Go(func() {
		_, _ = c.Write(big)
		closeWrite(c)
	})
	got, err := io.ReadAll(c)
	writing.Wait()
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes came back, %v, want %d", len(got), err, len(big))
	}
	_ = c.Close()
}

// checkResolver asks the engine's DNS server as Go's resolver does.
func checkResolver(t *testing.T) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, dnsServer.String())
		}}
		got, err := r.LookupHost(patient(t), "web.default.svc.cluster.local.")
		if err != nil || len(got) == 0 {
			t.Errorf("DNS by %s: %v, %v", network, got, err)
		}
	}
}

// BenchmarkKernel moves bytes from a TUN device to a flow, and back.
func BenchmarkKernel(b *testing.B) {
	if !namespaced(b) {
		return
	}
	sink := listen(b, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	runOn(b, Config{Device: kernelDevice(b), Dialer: toLoopback(sink)})
	c, err := net.Dial("tcp", cluster4.String())
	if err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if _, err := c.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
}

func BenchmarkKernelDown(b *testing.B) {
	if !namespaced(b) {
		return
	}
	chunk := make([]byte, 1<<20)
	source := listen(b, func(c *net.TCPConn) {
		for {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	})
	runOn(b, Config{Device: kernelDevice(b), Dialer: toLoopback(source)})
	c, err := net.Dial("tcp", cluster4.String())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if _, err := io.ReadFull(c, chunk); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
}
