package proxy

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inNetns runs f on a thread in a fresh network namespace where those groups may ping and loopback is up, or says why
// there can be none.
func inNetns(groups string, f func()) error {
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		runtime.LockOSThread() // for good: the thread ends with its namespace
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		// What /proc/sys/net is depends on the thread.
		if err = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0); err != nil {
			return
		}
		if err = loopbackUp(); err == nil {
			f()
		}
	})
	wg.Wait()
	return err
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

func TestPing(t *testing.T) {
	t.Parallel()
	testPing(t, "0 2147483647")
}

// TestPingRaw pings where nobody may have a socket for that, as in most pods, but root with its capabilities.
func TestPingRaw(t *testing.T) {
	t.Parallel()
	testPing(t, "1 0")
}

func testPing(t *testing.T, groups string) {
	t.Helper()
	err := inNetns(groups, func() {
		ctx := testContext(t)
		for _, tt := range []struct {
			addr string
			want error
		}{
			{"127.0.0.1", nil},
			{"::ffff:127.0.0.1", nil},
			{"::1", nil},
			{"192.0.2.1", syscall.ENETUNREACH},
			{"2001:db8::1", syscall.ENETUNREACH},
		} {
			err := ping(ctx, netip.MustParseAddr(tt.addr), []byte("how far is it?"))
			if !errors.Is(err, tt.want) {
				t.Errorf("ping %s: %v, want %v", tt.addr, err, tt.want)
			}
		}
	})
	if err != nil {
		t.Skip("no network namespace of our own here: ", err)
	}
}

// TestPingThroughTunnel pings as far as this machine lets us: the answer is what a ping from here gets.
func TestPingThroughTunnel(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	addr := netip.MustParseAddr("127.0.0.1")
	here := ping(testContext(t), addr, []byte("hello"))
	there := c.Ping(testContext(t), addr, []byte("hello"))
	if (here == nil) != (there == nil) || here != nil && !errors.Is(there, here) {
		t.Errorf("from the pod: %v; from here: %v", there, here)
	}
}
