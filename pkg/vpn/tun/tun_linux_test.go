package tun

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// namespaced runs the calling test again in a fresh network namespace, and
// returns true there.
func namespaced(t *testing.T) bool {
	t.Helper()
	const inside = "TELEPRESENCE_TEST_NETNS"
	if os.Getenv(inside) != "" {
		return true
	}
	probe, err := os.OpenFile(clonePath, os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no TUN device to be had: %v", err)
	}
	_ = probe.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
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

func TestCloseEndsRead(t *testing.T) {
	if !namespaced(t) {
		return
	}
	opened, err := Open("tel%d", DefaultMTU)
	if err != nil {
		t.Fatal(err)
	}
	file, err := OpenFile("handed%d", 1500)
	if err != nil {
		t.Fatal(err)
	}
	if name, err := Name(file); err != nil || name != "handed0" {
		t.Errorf("Name = %q, %v, want handed0", name, err)
	}
	handed, err := FromFile(file, 1500)
	if err != nil {
		t.Fatal(err)
	}
	if got := interfaces(t); !strings.Contains(got, "tel0") || !strings.Contains(got, "handed0") {
		t.Errorf("interfaces:\n%s\nwant tel0 and handed0 among them", got)
	}
	for _, d := range []Device{opened, handed} {
		ended := make(chan error, 1)
		var reading sync.WaitGroup
		reading.Go(func() {
			_, err := d.Read(make([]byte, d.MTU()))
			ended <- err
		})
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		reading.Wait()
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("Read after Close: %v, want os.ErrClosed", err)
		}
	}
	if got := interfaces(t); strings.Contains(got, "tel0") || strings.Contains(got, "handed0") {
		t.Errorf("interfaces after Close:\n%s", got)
	}
}

func TestOpenTaken(t *testing.T) {
	if !namespaced(t) {
		return
	}
	first, err := Open("same", DefaultMTU)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	if _, err := Open("same", DefaultMTU); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("Open of a name that is taken: %v, want EBUSY", err)
	}
	if _, err := Open("a name that is far too long", DefaultMTU); err == nil {
		t.Error("Open of an impossible name: no error")
	}
	if _, err := Open("mtu", 70_000); err == nil {
		t.Error("Open with an impossible MTU: no error")
	}
}

// interfaces is what this network namespace has.
func interfaces(t *testing.T) string {
	t.Helper()
	// Not /sys/class/net, which belongs to the namespace that mounted it.
	b, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
