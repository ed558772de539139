package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cgroupRoots are the hierarchies of control groups: one per controller in
// version 1, one in all in version 2, both on some machines.
func cgroupRoots() ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var roots []string
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) > 2 && (fields[2] == "cgroup" || fields[2] == "cgroup2") {
			roots = append(roots, fields[1])
		}
	}
	return roots, nil
}

// enterCgroup moves a machine's first process, and with it all that it will
// start, into control groups of its own. The runtime puts containers below
// them (version 1) or beside them (version 2, where a group with processes
// may not have limited groups below it), that is below NETWORK/MACHINE.
func enterCgroup(group string, pid int) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, group, "init")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := inheritCPUSet(root, group, "init"); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("moving machine to control group %s: %w", dir, err)
		}
	}
	return nil
}

// inheritCPUSet fills what a new group of version 1's cpuset controller has
// empty and no process may join without.
func inheritCPUSet(root string, elements ...string) error {
	dir := root
	for _, element := range strings.Split(filepath.Join(elements...), "/") {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			own, err := os.ReadFile(filepath.Join(dir, element, file))
			if errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(own)) != "" {
				continue
			}
			value, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil || strings.TrimSpace(string(value)) == "" {
				continue // version 2: the group inherits by itself
			}
			if err := os.WriteFile(filepath.Join(dir, element, file), value, 0); err != nil {
				return fmt.Errorf("setting %s: %w", file, err)
			}
		}
		dir = filepath.Join(dir, element)
	}
	return nil
}

// removeCgroups removes a group and all below it from every hierarchy. The
// kernel may take a moment to see that the processes in it have ended.
func removeCgroups(group string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			err := removeTree(filepath.Join(root, group))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("removing control group: %w", err)
			}
		}
		_ = os.Remove(filepath.Join(root, filepath.Dir(group))) // the network's: goes with its last machine
	}
	return nil
}

// removeTree removes a folder of folders, the innermost first: the files in a
// control group can't be removed and don't need to be.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}
