// Command app is the sample application of tests and demo: a small server that
// says who it is, and the requests that its users make.
//
// It is built into an image of its own, without a shell, and run on the
// developer's machine as the process that takes the pod's place.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  app serve [--name NAME] [--http PORT,…] [--tcp PORT,…] [--udp PORT,…] [--host ADDRESS]
                              serve until told to end; the same by NAME, HTTP, TCP, UDP and HOST in the environment
  app get URL…                print what each answers
  app tcp HOST:PORT TEXT      send a text to an echo server, print the answer
  app udp HOST:PORT TEXT
  app lookup NAME…            print the addresses of names, sorted
  app cat FILE…               print files: the image has no program that does
  app read FOLDER…            read all files below each, and print how many there are and how long that took
  app terminal                print the terminal's size whenever it changes, what is typed, and the signal that ends it, with
                              status 3
  app exit STATUS             end with that status
`

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := dispatch(ctx, args)
	var status exitStatus
	switch {
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		return 2
	case err != nil:
		fmt.Fprintln(os.Stderr, "app:", err)
		return 1
	}
	return 0
}

// errUsage is a command line that makes no sense.
var errUsage = errors.New("wrong arguments")

// exitStatus is the status that the command line asks for.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	command, args := args[0], args[1:]
	switch {
	case command == "serve":
		s, err := parseServe(args, os.Getenv)
		if err != nil {
			return err
		}
		return s.run(ctx)
	case command == "get" && len(args) > 0:
		return get(ctx, args)
	case (command == "tcp" || command == "udp") && len(args) == 2:
		return echo(ctx, command, args[0], args[1])
	case command == "lookup" && len(args) > 0:
		return lookup(ctx, args)
	case command == "cat" && len(args) > 0:
		return cat(args)
	case command == "read" && len(args) > 0:
		return read(args)
	case command == "terminal" && len(args) == 0:
		return watchTerminal()
	case command == "exit" && len(args) == 1:
		var status int
		if _, err := fmt.Sscan(args[0], &status); err != nil {
			return errUsage
		}
		return exitStatus(status)
	}
	return errUsage
}
