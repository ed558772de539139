package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// selfPath is this program, also when its file was replaced meanwhile.
func selfPath() string { return "/proc/self/exe" }

// launcherAttr makes the launcher lead a group, and die with the keeper.
func launcherAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// adoptOrphans makes this process the parent of every descendant that loses
// its own.
func adoptOrphans() {
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // exists since Linux 3.4
}

// anyLeft says whether a child, adopted ones included, is left.
func anyLeft(int) bool {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return !errors.Is(err, unix.ECHILD)
		}
	}
}

// terminate asks every process that descends from this one to end, stopped ones
// too. Who ignores SIGTERM, as interactive shells do, is hung up.
func terminate(int) {
	for _, pid := range descendants() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
		if ignores(pid, syscall.SIGTERM) {
			_ = syscall.Kill(pid, syscall.SIGHUP)
		}
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// kill kills every process that descends from this one.
func kill(int) {
	for _, pid := range descendants() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// ignores says whether a process ignores a signal.
func ignores(pid int, s syscall.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(status, []byte("\nSigIgn:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	set, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
	return err == nil && set&(1<<(s-1)) != 0
}

// descendants are the processes that descend from this one.
func descendants() []int {
	children := map[int][]int{}
	for _, pid := range processes() {
		if parent, ok := parentOf(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	var all []int
	next := children[os.Getpid()]
	for len(next) > 0 {
		pid := next[0]
		next = append(next[1:], children[pid]...)
		all = append(all, pid)
	}
	return all
}

// processes are all that this user may see.
func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// parentOf reads a process's parent from /proc/PID/stat, whose second field,
// in parentheses, may hold anything.
func parentOf(pid int) (int, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 || string(fields[0]) == "Z" {
		return 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return parent, err == nil
}

// dropCapabilities makes the calling thread, and what it executes, have no
// capability but those in keep.
func dropCapabilities(keep uint64) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing the ambient ones: %w", err)
	}
	for c := 0; c <= unix.CAP_LAST_CAP && os.Geteuid() == 0; c++ { // what root would regain
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) { // a kernel that has fewer
			return fmt.Errorf("bounding them: %w", err)
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("reading them: %w", err)
	}
	for i := range data {
		word := uint32(keep >> (32 * i)) // one half of the set each
		data[i].Effective &= word
		data[i].Permitted &= word
		data[i].Inheritable = 0
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("setting them: %w", err)
	}
	return nil
}

// unstopped calls f while the calling thread, which may be in the background
// of its terminal, isn't stopped for changing it.
func unstopped(f func() error) error {
	var set, old unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGTTOU - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old); err != nil {
		return fmt.Errorf("blocking SIGTTOU: %w", err)
	}
	err := f()
	return errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil))
}

// stopOwnGroup stops this program's process group as the terminal would, and
// returns when it was continued, or at once when nobody could continue it.
func stopOwnGroup(s syscall.Signal) {
	own := syscall.Getpgrp()
	for _, pid := range processes() {
		if group, err := syscall.Getpgid(pid); err == nil && group == own && pid != os.Getpid() {
			_ = syscall.Kill(pid, s)
		}
	}
	// A signal to our own thread stops us before the call returns; one to the
	// process could do so a moment later.
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), s)
}
