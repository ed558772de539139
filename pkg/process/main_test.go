//go:build unix

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telepresence/telepresence/test/wait"
)

// driverRole makes the test's binary run a command as telepresence would, and
// exit as the command did.
const driverRole = "test-driver"

func TestMain(m *testing.M) {
	if code, ok := Main(os.Args[1:]); ok {
		os.Exit(code)
	}
	if len(os.Args) > 1 && os.Args[1] == driverRole {
		os.Exit(drive(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

// drive runs the command that follows a moment: "run" for the whole way;
// "start" stops short of releasing it, for good.
func drive(args []string) int {
	p, err := Start(context.Background(), Config{
		Command: args[1:], Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err != nil {
		fmt.Fprintln(os.Stdout, "T:", err)
		return 255
	}
	if args[0] == "start" {
		fmt.Fprintln(os.Stdout, "keeper", p.KeeperPID())
		select {}
	}
	if err := p.Release(); err != nil {
		fmt.Fprintln(os.Stdout, "T:", err)
		return 255
	}
	status, err := p.Wait()
	if err != nil {
		fmt.Fprintln(os.Stdout, "T:", err)
		return 255
	}
	if err := p.Close(); err != nil {
		fmt.Fprintln(os.Stdout, "T:", err)
		return 255
	}
	return status.ExitCode()
}

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// alive says whether a process runs.
func alive(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	s := string(stat)
	return !strings.HasPrefix(strings.TrimSpace(s[strings.LastIndex(s, ")")+1:]), "Z")
}

// pidFile reads a process id that a script writes to a file.
func pidFile(t *testing.T, path string) int {
	t.Helper()
	var pid int
	wait.Until(t, patience, path+" holds a process id", func() bool {
		b, err := os.ReadFile(path)
		if err != nil || !strings.HasSuffix(string(b), "\n") {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	})
	return pid
}

// run starts a shell script, and closes it when the test ends.
func run(t *testing.T, cfg Config, script string, args ...string) *Process {
	t.Helper()
	cfg.Command = append([]string{"sh", "-c", script, "sh"}, args...)
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	p, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	return p
}

// driver is this test's binary as a driver of a command.
func driver(moment string, command ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{driverRole, moment}, command...)...)
}

// output gives a file for a process's output, and what was written to it.
func output(t *testing.T) (*os.File, func() string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, func() string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}
