//go:build unix && !linux

package process

import (
	"os"
	"os/signal"
	"syscall"
)

// Untested: nobody ran this yet. It is compiled with everything else.

// selfPath is this program.
func selfPath() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

func launcherAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// adoptOrphans can't be done here: what leaves the process's group is not ended.
func adoptOrphans() {}

// anyLeft says whether somebody is left in a group.
func anyLeft(group int) bool {
	return group != 0 && syscall.Kill(-group, 0) == nil
}

// terminate asks a group to end.
func terminate(group int) {
	if group != 0 {
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGCONT} {
			_ = syscall.Kill(-group, s)
		}
	}
}

// kill kills a group.
func kill(group int) {
	if group != 0 {
		_ = syscall.Kill(-group, syscall.SIGKILL)
	}
}

func dropCapabilities(uint64) error { return nil }

// unstopped calls f while this program, which may be in the background of its
// terminal, isn't stopped for changing it.
func unstopped(f func() error) error {
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	return f()
}

// stopOwnGroup stops this program's process group as the terminal would.
func stopOwnGroup(s syscall.Signal) { _ = syscall.Kill(0, s) }
