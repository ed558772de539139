//go:build unix

package process

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is this program's controlling terminal. A nil terminal is none:
// its methods do nothing.
type terminal struct {
	file *os.File
	own  int // our process group

	mu    sync.Mutex  // guards the fields below
	group int         // the process's group; 0: not started
	held  bool        // the process's group has the terminal from us
	ours  *term.State // its modes when we handed it over
	saved *term.State // its modes when the process stopped
}

// openTerminal opens the controlling terminal, if there is one.
func openTerminal() *terminal {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	t := &terminal{file: f, own: syscall.Getpgrp()}
	if _, err := t.foreground(); err != nil {
		_ = f.Close()
		return nil
	}
	return t
}

func (t *terminal) close() { _ = t.file.Close() }

// foreground is the process group that has the terminal.
func (t *terminal) foreground() (int, error) {
	return unix.IoctlGetInt(int(t.file.Fd()), unix.TIOCGPGRP)
}

// handOver says whether a process that is about to start gets the terminal: it
// does if it is ours to give. The process takes it then.
func (t *terminal) handOver() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if fg, err := t.foreground(); err != nil || fg != t.own {
		return false
	}
	t.ours, _ = term.GetState(int(t.file.Fd()))
	t.held = true
	return true
}

// setGroup says which group the started process leads.
func (t *terminal) setGroup(group int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.group = group
}

// take takes the terminal back, if the process has it from us; with restore,
// it gets back the modes it had then.
func (t *terminal) take(restore bool) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.takeLocked(restore)
	t.group = 0
}

func (t *terminal) takeLocked(restore bool) {
	if !t.held {
		return
	}
	t.held = false
	if setForeground(t.file, t.own) == nil && restore && t.ours != nil {
		_ = term.Restore(int(t.file.Fd()), t.ours)
	}
}

// giveLocked gives the terminal to the process, in the modes in which it left
// it, if it is ours to give.
func (t *terminal) giveLocked() bool {
	if t.group == 0 || t.held {
		return t.held
	}
	if fg, err := t.foreground(); err != nil || fg != t.own {
		return false
	}
	t.ours, _ = term.GetState(int(t.file.Fd()))
	if t.saved != nil {
		_ = term.Restore(int(t.file.Fd()), t.saved)
		t.saved = nil
	}
	t.held = setForeground(t.file, t.group) == nil
	return t.held
}

// suspend follows a process that has stopped: this program stops as well, and
// lets the process continue when it is continued itself.
func (p *Process) suspend(ws syscall.WaitStatus) {
	if p.term == nil {
		return // who stopped it will let it continue
	}
	p.term.suspend(ws.StopSignal())
	_ = p.send(request{Op: opSignal, Signal: syscall.SIGCONT})
}

func (t *terminal) suspend(s syscall.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t.mu.Lock()
	defer t.mu.Unlock()
	if s == syscall.SIGTTIN || s == syscall.SIGTTOU {
		// It wants the terminal, which may have become ours unnoticed: a
		// shell's fg sends no signal to a job that runs.
		if !t.held && t.giveLocked() {
			return
		}
	}
	if t.held {
		t.saved, _ = term.GetState(int(t.file.Fd()))
		t.takeLocked(true)
	}
	stopOwnGroup(s)
	t.giveLocked()
}

// followTerminal hands the terminal over whenever this program is continued in
// the foreground, until the process is gone.
func (p *Process) followTerminal() {
	defer p.term.close()
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	for {
		select {
		case <-continued:
			p.term.mu.Lock()
			fg, err := p.term.foreground()
			if err == nil && fg == p.term.own {
				p.term.held = false
				p.term.giveLocked()
			}
			p.term.mu.Unlock()
		case <-p.gone:
			return
		}
	}
}

// takeTerminal makes group the foreground group of the controlling terminal.
func takeTerminal(group int) error {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		if errors.Is(err, syscall.ENXIO) {
			return nil // hung up meanwhile
		}
		return err
	}
	defer func() { _ = f.Close() }()
	return setForeground(f, group)
}

func setForeground(f *os.File, group int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return unstopped(func() error {
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSPGRP, group)
	})
}
