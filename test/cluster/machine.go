package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A machine is what its first process is told: see init.go. All paths but the
// binds' sources are as the machine sees them.
type machine struct {
	Hostname string
	Binds    []bind
	Sysctls  map[string]string // only those that belong to a network namespace
	Pretend  map[string]string // files of /proc/sys that look so, while the real ones stay untouched
	Programs []program
}

// A bind shows a folder of the state folder, or of the cache, in the machine.
type bind struct{ Source, Target string }

// A program is kept running; its output is in /var/log/NAME.log.
type program struct {
	Name string
	Argv []string
}

// boot starts a machine. While its first process waits, connect is called with
// its id, to lay cables; it returns what the machine is to be.
func (c *cluster) boot(name string, connect func(pid int) (machine, error)) error {
	for _, folder := range []string{"lib", "log"} {
		if err := os.MkdirAll(c.path(name, folder), 0o755); err != nil {
			return err
		}
	}
	output, err := os.OpenFile(c.path(name, "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	told, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _, _ = told.Close(), tell.Close() }()

	cmd := exec.Command("/proc/self/exe", "init")
	cmd.Args[0] = "cluster-" + name
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{told}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting machine %s: %w", name, err)
	}
	pid := cmd.Process.Pid
	if err := c.writePID(name, pid); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	m, err := connect(pid)
	if err == nil {
		err = json.NewEncoder(tell).Encode(m)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("connecting machine %s: %w", name, err), c.powerOff(name))
	}
	return cmd.Process.Release()
}

// writePID remembers a machine's first process by its id and the time it
// started: together they name one process only.
func (c *cluster) writePID(name string, pid int) error {
	started, _, err := processStart(pid)
	if err != nil {
		return err
	}
	return c.write(fmt.Sprintf("%d %s\n", pid, started), name, "pid")
}

// processStart is when a process started, in the kernel's ticks, and whether
// it is but a dead one that its parent has not yet asked about.
func processStart(pid int) (started string, dead bool, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", true, err
	}
	// The second field, the name in brackets, may hold anything.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", true, fmt.Errorf("reading /proc/%d/stat: %q", pid, stat)
	}
	return fields[19], fields[0] == "Z", nil
}

// pid is the id of a machine's first process, 0 when the machine is off.
func (c *cluster) pid(name string) int {
	text, err := os.ReadFile(c.path(name, "pid"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return 0
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil {
		return 0
	}
	if started, dead, err := processStart(pid); err != nil || dead || started != fields[1] {
		return 0
	}
	return pid
}

// powerOff ends a machine at once: with its first process the kernel ends all
// others in it, and the mounts and interfaces of its namespaces go with them.
func (c *cluster) powerOff(name string) error {
	if pid := c.pid(name); pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("ending machine %s (process %d): %w", name, pid, err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); c.pid(name) != 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("machine %s (process %d) does not end", name, c.pid(name))
		}
	}
	if n, err := c.network(); err == nil {
		return removeCgroups(filepath.Join(n.hostInterface(), name))
	}
	return nil
}

// execute runs a command in a machine, as if one were logged in there.
func (c *cluster) execute(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	pid := c.pid(args[0])
	if pid == 0 {
		return fmt.Errorf("machine %s is off", args[0])
	}
	cmd := exec.Command("nsenter", append(inside(pid), args[1:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	var failed *exec.ExitError
	if err := cmd.Run(); errors.As(err, &failed) {
		return exitStatus(failed.ExitCode())
	} else if err != nil {
		return err
	}
	return nil
}

// inside are nsenter's arguments to enter a machine.
func inside(pid int) []string {
	return []string{"--target", strconv.Itoa(pid), "--net", "--mount", "--pid", "--uts", "--ipc", "--", "env", "PATH=" + machinePath}
}
