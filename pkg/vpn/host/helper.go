//go:build unix

package host

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Main is the helper: the only part of telepresence that runs as root. It does
// what the parent at the other end of the socket asks for, for as long as that
// is there, and returns the exit code.
func Main(args []string) int { return help(args, &machine{}) }

func help(args []string, m *machine) int {
	// A Ctrl-C at the terminal is for the parent, which ends us in order.
	signal.Ignore(unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGTSTP, unix.SIGPIPE)
	if len(args) != 1 {
		return 2
	}
	if args[0] == guarding {
		return guard(os.Stdin)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return 1
	}
	defer conn.Close()
	if err := trusted(conn, args[0]); err != nil {
		_ = send(conn, answer{Problem: err.Error()}, nil)
		return 1
	}
	var cfg Config
	in := bufio.NewReader(io.LimitReader(conn, maxMessage))
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &cfg)
	}
	if err == nil {
		err = cfg.check()
	}
	if err != nil {
		_ = send(conn, answer{Problem: "reading what to do: " + err.Error()}, nil)
		return 1
	}
	return m.serve(conn, cfg)
}

// trusted sees that who listens on the socket is who asked sudo for us.
func trusted(conn *net.UnixConn, socket string) error {
	uid, err := peerUID(conn)
	if err != nil {
		return err
	}
	at, err := os.Lstat(socket)
	if err != nil {
		return err
	}
	if owner, ok := ownerOf(at); !ok || owner != uid {
		return fmt.Errorf("socket %s: user %d listens on what user %d made", socket, uid, owner)
	}
	if asked := os.Getenv("SUDO_UID"); asked != "" && asked != fmt.Sprint(uid) {
		return fmt.Errorf("socket %s is user %d's, and sudo was asked by user %s", socket, uid, asked)
	}
	return nil
}

// serve sets the machine up, waits for the parent's end, and undoes.
func (m *machine) serve(conn *net.UnixConn, cfg Config) int {
	a, device, err := m.setUp(cfg)
	if err != nil {
		a = answerOf(errors.Join(err, m.undo()))
	}
	if sendErr := send(conn, a, device); sendErr != nil || err != nil {
		_ = closeIf(device)
		_ = m.undo()
		return 1
	}
	if err := device.Close(); err != nil { // the parent has it: the interface goes with the last who does
		_ = m.undo()
		return 1
	}
	m.at("handed over")
	_, _ = io.Copy(io.Discard, conn) // until the parent ends its side, or is gone
	a = answer{}
	if err := m.undo(); err != nil {
		a = answerOf(err)
	}
	if send(conn, a, nil) != nil || a.Problem != "" {
		return 1
	}
	return 0
}

func answerOf(err error) answer {
	a := answer{Problem: err.Error()}
	if e, ok := errors.AsType[*Error](err); ok {
		a.Way = e.Way
	}
	return a
}

// machine is this machine, with what undoes what was done to it.
type machine struct {
	undos []func() error // the last first
	stops func(string)   // in tests: called after each step
}

// at is where the machine has come to, with a name for the tests.
func (m *machine) at(step string) {
	if m.stops != nil {
		m.stops(step)
	}
}

// did notes how to undo what has just been done.
func (m *machine) did(undo func() error) { m.undos = append(m.undos, undo) }

// undo puts the machine back. What fails doesn't keep the rest from it.
func (m *machine) undo() error {
	var errs []error
	for len(m.undos) > 0 {
		last := len(m.undos) - 1
		errs = append(errs, m.undos[last]())
		m.undos = m.undos[:last]
		m.at(fmt.Sprintf("%d to undo", last))
	}
	return errors.Join(errs...)
}
