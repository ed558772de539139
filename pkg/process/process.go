//go:build unix

// Package process runs the user's process: it hands it the terminal, forwards
// signals, reports how it ended, and leaves none of its children behind.
//
// Between this program and the user's process stands the keeper, this program
// started again: it adopts what the process leaves running, and ends all of it
// when the process has ended or when this program dies, however that happens.
//
//  1. Start starts the keeper, which starts the launcher: this program once more.
//  2. Release makes the launcher the leader of a process group, gives that
//     group the terminal if it was ours, and executes the command in its place.
//  3. When the process stops (Ctrl-Z), this program takes the terminal back and
//     stops too, so that the user's shell sees one job; continued, it hands over again.
//  4. When the process ends, Wait returns and the keeper ends what it left behind.
package process

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// DefaultGrace is how long a process has, after SIGTERM, to end by itself.
const DefaultGrace = 5 * time.Second

// Config says what to run, and how.
type Config struct {
	// Command is the program and its arguments. A program without a slash is
	// looked up in the PATH of Env, once the process is released.
	Command []string
	Env     []string
	Dir     string // empty: the current one
	// Stdin, Stdout and Stderr are the process's; nil is /dev/null. They stay
	// the caller's.
	Stdin, Stdout, Stderr *os.File
	// Grace is how long the process has between SIGTERM and SIGKILL when it
	// is ended by Close; 0 means DefaultGrace.
	Grace time.Duration
	Log   *slog.Logger // nil: no log
	// Keeper, if not nil, changes how the keeper is started, for example into
	// namespaces of its own. The first of its extra files stays the first.
	Keeper func(*exec.Cmd)
}

// Process is the user's process. Its methods may be called from several
// goroutines at once. Who starts one must Close it.
type Process struct {
	cfg  Config
	log  *slog.Logger
	cmd  *exec.Cmd
	conn *os.File
	term *terminal // nil: no controlling terminal
	wg   sync.WaitGroup

	sendMu sync.Mutex // guards enc
	enc    *gob.Encoder

	started chan struct{} // closed when the command was executed
	ended   chan struct{} // closed after status and err are set
	gone    chan struct{} // closed when the keeper is gone, after ended
	status  ExitStatus
	err     error
}

// Start starts the keeper. The command itself waits for Release. ctx bounds
// the start only.
func Start(ctx context.Context, cfg Config) (*Process, error) {
	if len(cfg.Command) == 0 {
		return nil, errors.New("starting a process: no command")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ours, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	p := &Process{
		cfg: cfg, log: cfg.Log, conn: ours,
		enc:     gob.NewEncoder(ours),
		started: make(chan struct{}),
		ended:   make(chan struct{}),
		gone:    make(chan struct{}),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.cmd = &exec.Cmd{
		Path: selfPath(), Args: []string{os.Args[0], KeeperRole},
		Dir: "/", Env: []string{},
		Stderr:      cfg.Stderr,
		ExtraFiles:  []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if cfg.Stdin != nil { // a nil *os.File in an interface is not nil
		p.cmd.Stdin = cfg.Stdin
	}
	if cfg.Stdout != nil {
		p.cmd.Stdout = cfg.Stdout
	}
	if cfg.Stderr == nil {
		p.cmd.Stderr = nil
	}
	if cfg.Keeper != nil {
		cfg.Keeper(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("starting the keeper of the process: %w", err)
	}
	p.term = openTerminal()
	p.wg.Go(p.follow)
	if p.term != nil {
		p.wg.Go(p.followTerminal)
	}
	return p, nil
}

// KeeperPID is the process id of the keeper.
func (p *Process) KeeperPID() int { return p.cmd.Process.Pid }

// Gone is closed when the keeper, and with it the process and its children,
// has ended.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Release starts the command. It returns when the command was executed, or
// the reason why it can't be: then the process has ended.
func (p *Process) Release() error {
	dir := p.cfg.Dir
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return fmt.Errorf("finding the current directory: %w", err)
		}
	}
	grace := p.cfg.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	r := request{Op: opRelease, Grace: grace, Launch: launch{
		Command: p.cfg.Command, Env: p.cfg.Env, Dir: dir,
		Foreground: p.term.handOver(),
	}}
	if err := p.send(r); err != nil {
		p.term.take(false)
		<-p.ended
		return fmt.Errorf("starting %q: %w", p.cfg.Command[0], p.err)
	}
	select {
	case <-p.started:
		return nil
	case <-p.ended:
	}
	select {
	case <-p.started: // and ended already
		return nil
	default:
		return p.err
	}
}

// Wait waits until the process has ended and says how. What it left running
// may take a moment longer; Close waits for that too.
func (p *Process) Wait() (ExitStatus, error) {
	<-p.ended
	return p.status, p.err
}

// Signal sends a signal to the process and the group it leads.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("sending %v: not a signal of this system", sig)
	}
	return p.send(request{Op: opSignal, Signal: s})
}

// Close ends the process and its children, if they still run: SIGTERM first,
// SIGKILL when the grace is over. It returns when all are gone, and may be
// called again.
func (p *Process) Close() error {
	_ = p.send(request{Op: opEnd}) // an error means that the keeper is gone
	p.wg.Wait()
	return nil
}

// send sends the keeper a request.
func (p *Process) send(r request) error {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	return p.enc.Encode(r)
}

// follow carries out what the keeper reports, until the keeper is gone.
func (p *Process) follow() {
	defer close(p.gone)
	dec := gob.NewDecoder(p.conn)
	known := false // how the process ended
	for {
		var e event
		if err := dec.Decode(&e); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				p.log.Debug("reading from the keeper", "error", err)
			}
			break
		}
		p.log.Debug("process", "event", e.Kind, "pid", e.PID, "status", e.Status)
		switch e.Kind {
		case eventStarted:
			p.term.setGroup(e.PID)
			close(p.started)
		case eventRefused:
			known = true
			p.err = e.startError(p.cfg.Command[0])
			p.term.take(false)
			close(p.ended)
		case eventStopped:
			p.suspend(e.Status)
		case eventExited:
			known = true
			p.status = statusOf(e.Status)
			p.term.take(p.status.Signal != 0)
			close(p.ended)
		}
	}
	err := p.cmd.Wait()
	if !known {
		p.term.take(true)
		p.err = errUnstarted
		if err != nil {
			p.err = fmt.Errorf("the keeper of the process was lost: %w", err)
		}
		close(p.ended)
	}
	_ = p.conn.Close()
}

var errUnstarted = errors.New("the process was ended before it started")
