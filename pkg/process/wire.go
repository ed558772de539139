//go:build unix

package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// The roles in which this program starts itself: its first argument. Main
// plays them.
const (
	KeeperRole   = "process-keeper"
	launcherRole = "process-launcher"
)

// The descriptors that keeper and launcher are started with.
const (
	keeperControl  = 3 // requests in, events out
	launcherOrders = 3 // a launch comes in
	launcherReport = 4 // a refusal goes out; closed by a successful exec
)

// request is what this program asks of the keeper.
type request struct {
	Op     string
	Launch launch         // opRelease
	Grace  time.Duration  // opRelease
	Signal syscall.Signal // opSignal
}

const (
	opRelease = "release" // start the command
	opSignal  = "signal"  // send the process's group a signal
	opEnd     = "end"     // end everything
)

// launch is what the launcher becomes.
type launch struct {
	Command, Env []string
	Dir          string
	Foreground   bool   // take the terminal
	DropCaps     bool   // keep no capabilities but those in KeepCaps
	KeepCaps     uint64 // a bit per capability
}

// event is what the keeper reports.
type event struct {
	Kind    string
	PID     int                // eventStarted
	Status  syscall.WaitStatus // eventStopped, eventExited
	Refusal refusal            // eventRefused
}

const (
	eventStarted = "started"
	eventRefused = "refused"
	eventStopped = "stopped"
	eventExited  = "exited"
)

// refusal is why a command can't be executed.
type refusal struct {
	What  string // what was being done
	Errno syscall.Errno
	Text  string // when there is no errno
}

func refuse(what string, err error) refusal {
	r := refusal{What: what, Text: err.Error()}
	_ = errors.As(err, &r.Errno)
	return r
}

// startError is the error of an eventRefused.
func (e event) startError(name string) error {
	switch {
	case e.Refusal.Errno != 0:
		return fmt.Errorf("starting %q: %s: %w", name, e.Refusal.What, e.Refusal.Errno)
	default:
		return fmt.Errorf("starting %q: %s: %s", name, e.Refusal.What, e.Refusal.Text)
	}
}

// controlPair is the connection between this program and the keeper.
func controlPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %w", err)
	}
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return nil, nil, fmt.Errorf("setting a socket non-blocking: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "keeper"), os.NewFile(uintptr(fds[1]), "keeper"), nil
}
