//go:build unix

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"
)

// launched is the helper as its parent has it: a child, sudo or the helper itself.
type launched struct {
	cmd     *exec.Cmd
	sudo    bool
	exited  chan struct{} // closed when the child has ended
	err     error         // how; read it when exited is closed
	waiting sync.WaitGroup
}

// launch starts this program again, as root.
//
// sudo goes to the background when it has the password: else, with its use_pty,
// which is usual, it would take what the user types from the session's process
// for as long as the helper runs.
func launch(cfg Config, socket string) (*launched, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	l := &launched{sudo: os.Geteuid() != 0, exited: make(chan struct{})}
	args := []string{self, Role, socket}
	if l.sudo {
		sudo, err := exec.LookPath("sudo")
		if err != nil {
			return nil, &Error{
				Problem: "method vpn-tcp needs root for the device, the routes and DNS, and there is no sudo",
				Way:     "run telepresence as root, or use --method inject-tcp",
			}
		}
		cfg.Tell("sudo is asked for root: to make a network device, add routes to the cluster, and tell this machine's resolver of its names")
		args = append([]string{sudo, "--background", "--"}, args...)
	}
	l.cmd = exec.Command(args[0], args[1:]...) //nolint:noctx // it ends with its connection, when it has undone its work
	l.cmd.Stdin, l.cmd.Stderr = cfg.Stdin, cfg.Stderr
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	l.waiting.Go(func() {
		defer close(l.exited)
		l.err = l.cmd.Wait()
	})
	return l, nil
}

// accept waits for the helper, and sees that it is root's.
func (l *launched) accept(ctx context.Context, on *net.UnixListener) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	const look = 100 * time.Millisecond
	for {
		ended := l.ended() // before the look: it may have connected, and ended then
		if err := on.SetDeadline(time.Now().Add(look)); err != nil {
			return nil, fmt.Errorf("waiting for the helper: %w", err)
		}
		conn, err := on.AcceptUnix()
		if err == nil {
			uid, err := peerUID(conn)
			if err == nil && uid == 0 {
				return conn, nil
			}
			_ = conn.Close()
			return nil, fmt.Errorf("waiting for the helper: it is user %d's: %w", uid, errors.Join(err, os.ErrPermission))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fmt.Errorf("waiting for the helper: %w", err)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("waiting for the helper: %w", ctx.Err())
		}
		if ended {
			if err := l.failure(); err != nil {
				return nil, err
			}
		}
	}
}

// ended tells whether the child has.
func (l *launched) ended() bool {
	select {
	case <-l.exited:
		return true
	default:
		return false
	}
}

// failure is why the helper won't come, of a child that has ended: that sudo has
// is no failure, as it goes on in the background.
func (l *launched) failure() error {
	switch {
	case l.err == nil && l.sudo:
		return nil
	case l.sudo:
		return &Error{Problem: "the privileged helper didn't start: sudo refused", Way: "run telepresence as root, or use --method inject-tcp"}
	default:
		return fmt.Errorf("starting the helper: it ended: %w", errors.Join(l.err, os.ErrProcessDone))
	}
}

// end waits for the child. One that never reached us is killed: it may be sudo,
// which asks for a password and isn't ours to kill, but which ends with its
// terminal, and finds nobody to help.
func (l *launched) end(reached bool) error {
	patience := undoWithin
	if !reached {
		patience = time.Second
		_ = l.cmd.Process.Kill()
	}
	select {
	case <-l.exited:
		l.waiting.Wait()
	case <-time.After(patience):
		return fmt.Errorf("ending the helper: process %d: %w", l.cmd.Process.Pid, os.ErrDeadlineExceeded)
	}
	if l.err != nil {
		return fmt.Errorf("the helper: %w", l.err)
	}
	return nil
}
