// Command telepresence-agent stands in the pod in the place of the user's container: the far end of the tunnel. It
// needs no other file in its image, no particular user, no capability and nothing to write to.
//
//	telepresence-agent serve --port N [--grace 60s]
//	telepresence-agent serve --standing [--port N] [--grace 60s]
//	telepresence-agent enroll [--port N]  # hands a session's keys, from stdin, to the standing agent of its container
//	telepresence-agent ready --port N     # exit 0 if the pod is ready: a readiness probe
//	telepresence-agent install PATH       # copies itself there, for another image to run it
//	telepresence-agent environ --save F   # writes its environment to F, as a JSON array
//	telepresence-agent version
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // also "not ready", and a session that ended without a goodbye
	exitUsage  = 2
)

var errUsage = errors.New("usage: telepresence-agent serve|enroll|ready|install|environ|version [flags]")

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs one command.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := errUsage
	if len(args) > 0 {
		switch args[0] {
		case "serve":
			err = serve(ctx, args[1:], stderr)
		case "enroll":
			err = enroll(ctx, args[1:], stdin, stderr)
		case "ready":
			err = ready(ctx, args[1:], stderr)
		case "install":
			err = install(args[1:], stderr)
		case "environ":
			err = environ(args[1:], stderr)
		case "version":
			_, err = fmt.Fprintln(stdout, version)
		}
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage) || errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	fmt.Fprintln(stderr, "telepresence-agent:", err)
	return exitFailed
}

// parse parses a command's flags; there are no other arguments.
func parse(fs *flag.FlagSet, args []string, stderr io.Writer) error {
	fs.SetOutput(stderr)
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, fs.Arg(0))
	}
	return nil
}
