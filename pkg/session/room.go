package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long the process has, after SIGTERM, to end in order.
const endWithin = 10 * time.Second

// choosePlace decides how the process's traffic is intercepted, and asks the
// machine whether that can be done.
func (s *session) choosePlace(ctx context.Context) error {
	for _, path := range []string{s.o.EnvJSON, s.o.EnvFile} {
		if path != "" {
			if err := canWrite(path); err != nil {
				return err
			}
		}
	}
	if err := s.checkProgram(); err != nil {
		return err
	}
	switch s.o.Method {
	case MethodContainer:
		s.place = &inContainer{session: s}
	case MethodVPNTCP:
		s.place = &onMachine{session: s}
	case MethodInjectTCP:
		s.place = &inSandbox{session: s}
	case MethodAuto:
		return s.chooseMethod(ctx)
	default:
		return fmt.Errorf("there is no method %q", s.o.Method)
	}
	return s.place.check(ctx)
}

// chooseMethod takes the method that the user's options allow: a container's, or
// the sandbox where the machine can make one, or else the whole machine.
func (s *session) chooseMethod(ctx context.Context) error {
	if len(s.o.Docker) > 0 {
		s.place = &inContainer{session: s}
		return s.place.check(ctx)
	}
	return s.takeFirst(ctx, &inSandbox{session: s}, &onMachine{session: s})
}

// takeFirst takes the sandbox, or the machine if only that can be had. With
// neither, what the sandbox lacks is told, as that needs no root.
func (s *session) takeFirst(ctx context.Context, sandbox, machine place) error {
	s.place = sandbox
	err := s.place.check(ctx)
	if err == nil {
		return nil
	}
	s.place = machine
	if s.place.check(ctx) != nil {
		return err
	}
	s.ev.Warn(fmt.Sprintf("method inject-tcp can't be had here (%v): using vpn-tcp", err))
	return nil
}

// openPlace makes the room and puts the pod's things in it.
func (s *session) openPlace(ctx context.Context) error {
	root := ""
	if s.files != nil {
		root = s.files.root
	}
	words, variables := s.command()
	in := furniture{
		command:   words,
		variables: s.processEnviron(root),
		hostname:  s.pod.Hostname,
		resolv:    s.pod.ResolvConf,
		hosts:     s.pod.Hosts,
		addresses: s.pod.Addresses,
		volumes:   s.volumes(),
	}
	maps.Copy(in.variables, variables)
	for _, p := range append(s.toPod[:len(s.toPod):len(s.toPod)], s.fromPod...) {
		in.podPorts = append(in.podPorts, uint16(p))
	}
	made, err := s.place.open(ctx, in)
	s.room = made
	return err
}

// closePlace ends whatever still runs in the room, and takes it away.
func (s *session) closePlace(context.Context) error {
	if s.room == nil {
		return nil
	}
	err := s.room.Close()
	s.waiting.Wait()
	return err
}

// startProcess lets the user's process run, and has its end noticed.
func (s *session) startProcess(context.Context) error {
	s.ev.Waiting("")
	s.o.Log.Info("starting the local process")
	s.exited = make(chan exit, 1)
	if err := s.room.Release(); err != nil {
		s.exited = nil // nobody is to be waited for
		return err
	}
	s.waiting.Go(func() {
		code, err := s.room.Wait()
		s.exited <- exit{code, err}
		close(s.exited)
	})
	return nil
}

// endProcess asks the process to end, unless it has, and gives it time to do so
// in order. Who doesn't is ended by closePlace.
func (s *session) endProcess(ctx context.Context) error {
	if s.exited == nil {
		return nil
	}
	select {
	case <-s.exited:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	// An interactive shell ends at a hang-up, and at nothing milder.
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGHUP} {
		if err := s.room.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
			s.o.Log.Info("asking the local process to end", "signal", sig, "err", err)
		}
		if len(s.o.Command)+len(s.o.Docker) > 0 {
			break
		}
	}
	select {
	case <-s.exited:
	case <-ctx.Done():
		s.ev.Warn("the local process doesn't end: killing it")
	}
	return nil
}
