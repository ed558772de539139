//go:build unix

package process

import (
	"encoding/gob"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// How long what is left has between SIGTERM and SIGKILL when the process has
// ended, or when this program has died.
const restGrace = time.Second

// How long the keeper tries to kill what doesn't die.
const killPatience = 10 * time.Second

// Keeping is how a keeper does its work.
type Keeping struct {
	// DropCaps makes the command run with no capabilities but those in
	// KeepCaps (a bit per capability), whatever the keeper has.
	DropCaps bool
	KeepCaps uint64
}

// Main plays a role of this package, named by the first of args, and returns
// the exit code; ok is false when args name none.
func Main(args []string) (code int, ok bool) {
	if len(args) == 0 {
		return 0, false
	}
	switch args[0] {
	case KeeperRole:
		return Keep(Keeping{}), true
	case launcherRole:
		launcherMain()
		return 1, true
	}
	return 0, false
}

// Keep is the keeper's work, from its start to its end: it returns when the
// process and all that descends from it are gone. A program that takes the
// keeper's place calls it once its own part is done.
func Keep(how Keeping) int {
	// A child's parent-death signal comes when the thread that started it ends.
	runtime.LockOSThread()
	syscall.CloseOnExec(keeperControl)
	control := os.NewFile(keeperControl, "control")
	k := &keeper{how: how, enc: gob.NewEncoder(control), grace: DefaultGrace}
	adoptOrphans()
	requests := make(chan request)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(requests)
		dec := gob.NewDecoder(control)
		for {
			var r request
			if dec.Decode(&r) != nil {
				return
			}
			select {
			case requests <- r:
			case <-stop:
				return
			}
		}
	})
	code := k.run(requests)
	// Nothing of the process runs any more: what a reader at the other end
	// still sends is of no interest, and its end ends our reading.
	close(stop)
	_ = syscall.Shutdown(keeperControl, syscall.SHUT_RDWR)
	wg.Wait()
	_ = control.Close()
	return code
}

// keeper is the state of Keep.
type keeper struct {
	how      Keeping
	enc      *gob.Encoder
	grace    time.Duration
	launcher *os.File // where the launcher gets its orders
	report   *os.File // where it says why it can't
	pid      int      // of the launcher, then of the process; 0: none (any more)
	group    int      // that it leads; stays when it ended
	started  bool
}

// run serves requests until everything has ended.
func (k *keeper) run(requests <-chan request) int {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	others := make(chan os.Signal, 1) // meant for the process, or for its end, which we are told otherwise
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		if !signal.Ignored(s) { // or the process would not ignore it either
			signal.Notify(others, s)
		}
	}
	defer signal.Stop(others)
	if err := k.prepare(); err != nil {
		k.pid = 0
		k.tell(event{Kind: eventRefused, Refusal: refuse("preparing its start", err)})
		return 1
	}
	for {
		select {
		case <-others:
		case <-children:
			if k.reap() {
				return k.end(restGrace)
			}
		case r, ok := <-requests:
			switch {
			case !ok:
				return k.end(restGrace)
			case r.Op == opEnd:
				return k.end(k.grace)
			case r.Op == opSignal && k.started:
				_ = syscall.Kill(-k.group, r.Signal)
			case r.Op == opRelease && !k.started:
				if !k.release(r) {
					return k.end(restGrace)
				}
			}
		}
	}
}

// prepare starts the launcher, so that the command starts at once when it is
// released.
func (k *keeper) prepare() error {
	orders, launcher, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = orders.Close() }()
	report, reporter, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = reporter.Close() }()
	k.launcher, k.report = launcher, report
	k.pid, err = syscall.ForkExec(selfPath(), []string{os.Args[0], launcherRole}, &syscall.ProcAttr{
		Env:   []string{},
		Files: []uintptr{0, 1, 2, orders.Fd(), reporter.Fd()},
		Sys:   launcherAttr(),
	})
	return err
}

// release gives the launcher its orders, and reports whether the command runs.
func (k *keeper) release(r request) bool {
	k.grace = r.Grace
	r.Launch.DropCaps, r.Launch.KeepCaps = k.how.DropCaps, k.how.KeepCaps
	err := gob.NewEncoder(k.launcher).Encode(r.Launch)
	_ = k.launcher.Close()
	e := event{Kind: eventStarted, PID: k.pid}
	var why refusal
	if err != nil {
		e = event{Kind: eventRefused, Refusal: refuse("ordering it", err)}
	} else if gob.NewDecoder(k.report).Decode(&why) == nil {
		e = event{Kind: eventRefused, Refusal: why}
	}
	_ = k.report.Close()
	k.started = e.Kind == eventStarted
	k.group = k.pid
	k.tell(e)
	return k.started
}

// reap takes leave of the children that ended, adopted ones too, tells of the
// process, and says whether the process has ended.
func (k *keeper) reap() (ended bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG|syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid == 0 {
			return ended
		}
		switch {
		case pid != k.pid:
		case ws.Stopped():
			if k.started {
				k.tell(event{Kind: eventStopped, Status: ws})
			}
		default:
			ended = true
			k.pid = 0
			if k.started {
				k.tell(event{Kind: eventExited, Status: ws})
			}
		}
	}
}

// end ends the process, if it runs, and all that is left of its children, and
// returns when they are gone.
func (k *keeper) end(grace time.Duration) int {
	k.reap()
	if !k.started && k.pid != 0 {
		_ = syscall.Kill(k.pid, syscall.SIGKILL) // the launcher
	}
	terminate(k.group)
	if k.await(grace, func() {}) {
		return 0
	}
	if k.await(killPatience, func() { kill(k.group) }) {
		return 0
	}
	return 1
}

// await calls what again and again until no child is left, or time is up.
func (k *keeper) await(atMost time.Duration, what func()) (gone bool) {
	for deadline := time.Now().Add(atMost); ; time.Sleep(5 * time.Millisecond) {
		what()
		k.reap()
		if !anyLeft(k.group) {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

func (k *keeper) tell(e event) {
	_ = k.enc.Encode(e) // an error means that nobody listens: the requests end too
}
