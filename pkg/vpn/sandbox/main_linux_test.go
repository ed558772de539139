package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/process"
)

// The roles that this test's binary plays besides the test.
const (
	driverRole   = "test-driver"   // runs a command in a sandbox, as telepresence would
	ordinaryRole = "test-ordinary" // runs a command as an ordinary user, where /dev/net/tun is for all
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
		case ordinaryRole:
			os.Exit(beOrdinary(os.Args[2:]))
		}
	}
	goleak.VerifyTestMain(m)
}

// nobody is the ordinary user of the tests.
const nobody = 65534

// TestAsOrdinaryUser runs the tests of this package once more, without root.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is an ordinary user already")
	}
	t.Parallel()
	args := []string{ordinaryRole, "-test.run=^TestSandbox", "-test.timeout=10m", "-test.count=1"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
}

// beOrdinary makes a world in which /dev/net/tun is what it is on an ordinary
// machine, and runs this binary in it as nobody.
func beOrdinary(args []string) int {
	dir, err := ordinaryWorld()
	if err != nil {
		fmt.Fprintln(os.Stderr, "making an ordinary user's world:", err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// ordinaryWorld mounts a tmpfs, for TMPDIR, in a mount namespace of the tests'.
func ordinaryWorld() (string, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", err
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"); err != nil {
		return "", err
	}
	node := "/tmp/tun"
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		return "", err
	}
	if err := os.Chmod(node, 0o666); err != nil {
		return "", err
	}
	return "/tmp", unix.Mount(node, tunPath, "", unix.MS_BIND, "")
}

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
	status, err := s.Wait()
	b, readErr := os.ReadFile(out.Name())
	if err != nil || status.ExitCode() != 0 || readErr != nil {
		t.Fatalf("%v, %v, %v\n%s", status, err, readErr, b)
	}
	return string(b)
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
