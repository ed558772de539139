package sandbox

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/process"
)

// The roles that this test's binary plays besides the test.
const (
	driverRole = "test-driver" // runs a command in a sandbox, as telepresence would
	worldRole  = "test-world"  // runs a command as a user, in a world of its own
)

func TestMain(m *testing.M) {
	if code, ok := process.Main(os.Args[1:]); ok {
		os.Exit(code)
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Role:
			os.Exit(Main(os.Args[2:]))
		case driverRole:
			os.Exit(drive(os.Args[2:]))
		case worldRole:
			os.Exit(runInWorld(os.Args[2:]))
		}
	}
	goleak.VerifyTestMain(m)
}

// nobody is the ordinary user of the tests.
const nobody = 65534

// TestAsOrdinaryUser runs the tests of this package once more, without root.
func TestAsOrdinaryUser(t *testing.T) {
	t.Parallel()
	runTestsAs(t, nobody, "^TestSandbox")
}

// TestAloneAsRoot runs the tests that compare the machine before and after where
// nobody else changes it. (As an ordinary user, they are among the others.)
func TestAloneAsRoot(t *testing.T) {
	t.Parallel()
	runTestsAs(t, 0, "^TestSandboxKilled")
}

// inWorld is set in the environment of tests that run in a world of their own.
const inWorld = "TELEPRESENCE_TEST_WORLD"

func runTestsAs(t *testing.T, uid int, tests string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a world for the test")
	}
	args := []string{worldRole, fmt.Sprint(uid), "-test.run=" + tests, "-test.timeout=10m", "-test.count=1"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
}

// runInWorld makes a world in which /dev/net/tun is what it is on an ordinary
// machine, and runs this binary in it as a user.
func runInWorld(args []string) int {
	uid, err := strconv.Atoi(args[0])
	if err == nil {
		err = makeWorld()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a world for the tests:", err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", args[1:]...)
	cmd.Dir = "/tmp"
	cmd.Env = append(os.Environ(), "HOME=/tmp", "TMPDIR=/tmp", inWorld+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	id := uint32(uid) // 0 or nobody
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// makeWorld sets up the mount and network namespace of runInWorld.
func makeWorld() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"); err != nil {
		return err
	}
	node := "/tmp/tun"
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		return err
	}
	if err := os.Chmod(node, 0o666); err != nil {
		return err
	}
	if err := unix.Mount(node, tunPath, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return answerForNames()
}

// machinesNames are where a world's daemons answer for names: nscd, systemd-resolved
// and avahi, as it were.
var machinesNames = append([]string{"/run/nscd/socket"}, hidden...)

// answerForNames starts them in a /run of the world's own, for as long as the
// world is there.
func answerForNames() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	var serving sync.WaitGroup // until this process ends
	for _, path := range machinesNames {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as it is
			return err
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // anybody asks
			return err
		}
		serving.Go(func() { greet(l) })
	}
	return nil
}

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// start makes a sandbox for a shell script, or skips where the machine has no
// means for one.
func start(t *testing.T, cfg Config, script string, args ...string) *Sandbox {
	t.Helper()
	cfg.Command = append([]string{"sh", "-c", script, "sh"}, args...)
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if err := deviceAllowed(); err != nil {
		t.Skip(err)
	}
	if !mayMakeNamespaces() {
		if err := tryNamespaces(t.Context()); err != nil {
			t.Skip(err)
		}
	}
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run runs a shell script in a sandbox and returns what it wrote.
func run(t *testing.T, cfg Config, script string, args ...string) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cfg.Stdout, cfg.Stderr = out, out
	s := start(t, cfg, script, args...)
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	status, err := waitKilling(s)
	b, readErr := os.ReadFile(out.Name())
	if err != nil || status.ExitCode() != 0 || readErr != nil {
		t.Fatalf("%v, %v, %v\n%s", status, err, readErr, b)
	}
	return string(b)
}

// waitKilling waits for the end of the process, which it kills when that takes
// too long.
func waitKilling(s *Sandbox) (process.ExitStatus, error) {
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ended:
		case <-time.After(patience):
			_ = s.Signal(syscall.SIGKILL)
		}
	})
	defer wg.Wait()
	defer close(ended)
	return s.Wait()
}

// drive runs a command in a sandbox up to a moment ("started", "run") and
// exits as the command did.
func drive(args []string) int {
	s, err := Start(context.Background(), Config{
		Hostname: "driven", Command: args[1:], Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "T:", err)
		return 255
	}
	if args[0] == "started" {
		fmt.Fprintln(os.Stdout, "keeper", s.process.KeeperPID())
		select {}
	}
	if err := s.Release(); err != nil {
		fmt.Fprintln(os.Stderr, "T:", err)
		return 255
	}
	status, err := s.Wait()
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "T:", err)
		return 255
	}
	return status.ExitCode()
}

// lines splits what a script wrote.
func lines(s string) []string { return strings.Split(strings.TrimSuffix(s, "\n"), "\n") }
