package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// machinePath is where a machine's programs find others.
const machinePath = "/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// initMain is a machine's first process. It waits to be told what the machine
// is, mounts what belongs to it, and keeps its programs running until it is
// killed, with which the kernel ends everything in the machine.
func initMain() error {
	var m machine
	told := os.NewFile(3, "what to be")
	if err := json.NewDecoder(told).Decode(&m); err != nil {
		return fmt.Errorf("nothing to be: %w", err)
	}
	_ = told.Close()
	if err := m.setUp(); err != nil {
		return err
	}
	return m.supervise()
}

// setUp turns fresh namespaces into the machine.
func (m machine) setUp() error {
	if err := syscall.Sethostname([]byte(m.Hostname)); err != nil {
		return fmt.Errorf("setting the hostname: %w", err)
	}
	// Nothing mounted here may reach the host; but volumes with mount
	// propagation must reach the machine's containers.
	for _, flag := range []uintptr{syscall.MS_PRIVATE, syscall.MS_SHARED} {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|flag, ""); err != nil {
			return fmt.Errorf("separating the mounts: %w", err)
		}
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	// Sources are opened before the first mount can hide one of them.
	sources := make([]*os.File, len(m.Binds))
	for i, b := range m.Binds {
		source, err := os.Open(b.Source)
		if err != nil {
			return err
		}
		defer func() { _ = source.Close() }()
		sources[i] = source
	}
	if err := syscall.Mount("run", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	for i, b := range m.Binds {
		if err := bindMount(fmt.Sprintf("/proc/self/fd/%d", sources[i].Fd()), b.Target); err != nil {
			return err
		}
	}
	return m.setSysctls()
}

func bindMount(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(source, target, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", target, err)
	}
	return nil
}

func (m machine) setSysctls() error {
	for name, value := range m.Sysctls {
		path := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(path); err != nil {
			continue // as with an older kernel or a missing module
		}
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	for name, value := range m.Pretend {
		path, pretended := filepath.Join("/proc/sys", name), filepath.Join("/run/sysctl", name)
		if err := os.MkdirAll(filepath.Dir(pretended), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(pretended, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(pretended, path, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("covering %s: %w", path, err)
		}
	}
	return nil
}

// supervise starts the programs, starts each again when it ends, and reaps
// every orphan of the machine. It ends only with an error.
func (m machine) supervise() error {
	running := make(map[int]program)
	for _, p := range m.Programs {
		pid, err := p.start()
		if err != nil {
			return err
		}
		running[pid] = p
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for processes: %w", err)
		}
		p, ours := running[pid]
		if !ours {
			continue
		}
		delete(running, pid)
		say("%s ended (exit status %d, signal %d), starting it again", p.Name, status.ExitStatus(), status.Signal())
		time.Sleep(500 * time.Millisecond)
		if pid, err = p.start(); err != nil {
			return err
		}
		running[pid] = p
	}
}

// start starts the program and leaves waiting for it to supervise.
func (p program) start() (pid int, err error) {
	output, err := os.OpenFile(filepath.Join("/var/log", p.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer func() { _ = output.Close() }()
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer func() { _ = nothing.Close() }()
	env := []string{"PATH=" + machinePath, "HOME=/root", "TMPDIR=/run"}
	pid, err = syscall.ForkExec(p.Argv[0], slices.Clone(p.Argv), &syscall.ProcAttr{
		Dir: "/", Env: env, Files: []uintptr{nothing.Fd(), output.Fd(), output.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", p.Argv[0], err)
	}
	return pid, nil
}
