//go:build unix

package process

import (
	"fmt"
	"syscall"
)

// ExitStatus is how a process ended: with a code, or by a signal.
type ExitStatus struct {
	Code   int            // when Signal is 0
	Signal syscall.Signal // what killed it
}

// ExitCode is the status as a shell has it: the process's own code, or 128 +
// the signal's number.
func (s ExitStatus) ExitCode() int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

// String says it in words: "exit code 3", "killed: hangup".
func (s ExitStatus) String() string {
	if s.Signal != 0 {
		return fmt.Sprintf("killed: %v", s.Signal)
	}
	return fmt.Sprintf("exit code %d", s.Code)
}

func statusOf(ws syscall.WaitStatus) ExitStatus {
	if ws.Signaled() {
		return ExitStatus{Signal: ws.Signal()}
	}
	return ExitStatus{Code: ws.ExitStatus()}
}
