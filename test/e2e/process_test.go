package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sync/errgroup"
)

// A process goes on while its script does other things.
type process struct {
	name     string
	out, err string // files with its output
	cmd      *exec.Cmd
	terminal *os.File // the other end of its terminal, or nil
	copying  sync.WaitGroup
	waiting  errgroup.Group
	ended    chan struct{} // closed when it has, and all it said is in the files
}

// hearHangUps lets the scripts' processes have SIGHUP, also where this one was
// started with the signal ignored, as nohup does: who is ignored is inherited,
// who is caught isn't (execve(2)).
func hearHangUps() {
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
}

// start starts a process in a group of its own, whose end is waited for.
func (s *script) start(ts *testscript.TestScript, args []string) (string, error) {
	if len(args) < 2 {
		return "", errors.New("usage: start NAME PROGRAM…")
	}
	p, err := s.newProcess(ts, args[0], args[1:])
	if err != nil {
		return "", err
	}
	stdout, err := os.Create(p.out)
	if err != nil {
		return "", err
	}
	defer func() { _ = stdout.Close() }()
	stderr, err := os.Create(p.err)
	if err != nil {
		return "", err
	}
	defer func() { _ = stderr.Close() }()
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return "", err
	}
	s.attend(p)
	return "", nil
}

// newProcess is one that isn't started yet.
func (s *script) newProcess(ts *testscript.TestScript, name string, command []string) (*process, error) {
	if old := s.process(name); old != nil && !old.hasEnded() {
		return nil, fmt.Errorf("%s runs already", name)
	}
	p := &process{name: name, out: ts.MkAbs(name + ".out"), err: ts.MkAbs(name + ".err"), ended: make(chan struct{})}
	p.cmd = exec.Command(lookUp(ts.Getenv("PATH"), command[0]), command[1:]...)
	p.cmd.Dir, p.cmd.Env = ts.MkAbs("."), s.environ(ts)
	return p, nil
}

// attend waits for the end of a process that has been started.
func (s *script) attend(p *process) {
	p.waiting.Go(func() error {
		defer close(p.ended)
		defer p.copying.Wait()
		return p.cmd.Wait()
	})
	s.processes = append(s.processes, p)
}

// process is the last one started under a name, or nil.
func (s *script) process(name string) *process {
	for _, p := range slices.Backward(s.processes) {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// output is all that it has said so far, on both streams.
func (p *process) output() string {
	stdout, _ := os.ReadFile(p.out)
	stderr, _ := os.ReadFile(p.err)
	return string(stdout) + string(stderr)
}

// named is the process that a command's first argument means.
func (s *script) named(args []string, usage string) (*process, error) {
	if len(args) != 2 {
		return nil, errors.New("usage: " + usage)
	}
	p := s.process(args[0])
	if p == nil {
		return nil, fmt.Errorf("no process %q was started", args[0])
	}
	return p, nil
}

// await waits until a process has said something.
func (s *script) await(_ *testscript.TestScript, args []string) (string, error) {
	p, err := s.named(args, "await NAME RE")
	if err != nil {
		return "", err
	}
	want, err := regexp.Compile("(?m)" + args[1])
	if err != nil {
		return "", err
	}
	var endedWithout error
	err = until(func() error {
		ended := p.hasEnded() // before the output is read, so that all of it is
		switch {
		case want.MatchString(p.output()):
			return nil
		case ended:
			endedWithout = fmt.Errorf("%s ended (%v) and said\n%s", p.name, p.cmd.ProcessState, p.output())
			return nil
		}
		return fmt.Errorf("%s said\n%s", p.name, p.output())
	})
	return "", errors.Join(err, endedWithout)
}

// signal sends a signal to a process, and to it alone.
func (s *script) signal(_ *testscript.TestScript, args []string) (string, error) {
	p, err := s.named(args, "signal NAME INT|TERM|HUP|KILL")
	if err != nil {
		return "", err
	}
	signals := map[string]syscall.Signal{
		"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL,
		"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT,
	}
	number, known := signals[args[1]]
	if !known {
		return "", fmt.Errorf("no signal %q", args[1])
	}
	return "", p.cmd.Process.Signal(number)
}

// finish waits for a process's end.
func (s *script) finish(_ *testscript.TestScript, args []string) (string, error) {
	p, err := s.named(args, "finish NAME STATUS")
	if err != nil {
		return "", err
	}
	if !p.endsWithin(patience) {
		return "", fmt.Errorf("%s goes on; it said\n%s", p.name, p.output())
	}
	if want := args[1]; strconv.Itoa(p.cmd.ProcessState.ExitCode()) != want {
		return "", fmt.Errorf("%s ended with %v, not %s; it said\n%s", p.name, p.cmd.ProcessState, want, p.output())
	}
	return "", nil
}

func (p *process) endsWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	}
}

// endProcesses ends what the script has left running: politely first, so that
// a session can restore what it changed.
func (s *script) endProcesses() {
	for _, p := range s.processes {
		if !p.hasEnded() {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	for _, p := range s.processes {
		if !p.endsWithin(patience) {
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			if p.terminal != nil {
				_ = p.terminal.Close() // whoever still has the other end
			}
		}
		_ = p.waiting.Wait() // its exit status is finish's business
	}
}
