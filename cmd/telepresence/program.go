package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/telepresence/telepresence/pkg/k8s"
	"github.com/telepresence/telepresence/pkg/session"
)

// program is one call of the command.
type program struct {
	name    string // as help and messages have it
	streams streams
	environ []string
	ui      *tui

	rows     []flagRow
	settings settings
	line     line
	exit     int // the user's process's exit code

	// Who does the work; tests put others in their place.
	runSession     func(context.Context, session.Options, session.Events) (int, error)
	connect        func(k8s.Config) (cluster, error)
	connectCache   func(k8s.Config) (imageCache, error)
	currentContext func() string
	sweep          func(context.Context) // what killed sessions have left here and in docker
}

// newProgram makes a call of the command ready.
func newProgram(name string, s streams, environ []string) *program {
	p := &program{
		name: name, streams: s, environ: environ, ui: newTUI(s.out, s.err),
		rows: flagTable(), runSession: session.Run, connect: connectCluster, connectCache: connectCache, currentContext: currentContext,
	}
	p.sweep = p.sweepKilled
	return p
}

// run carries a command line out and returns the exit code.
func (p *program) run(args []string) int {
	ctx, stop := signalContext(context.Background(), p.ui.Tell)
	defer stop()
	err := p.execute(ctx, args)
	p.ui.settle()
	if err != nil {
		p.ui.fail(err)
		return codeOf(err)
	}
	return p.exit
}

func (p *program) execute(ctx context.Context, args []string) error {
	root := p.newRoot()
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		root.SetArgs(completionArgs(p.rows, args))
		root.SetErr(io.Discard) // cobra explains itself there
		return root.ExecuteContext(ctx)
	}
	l, err := splitLine(p.rows, args)
	if err != nil {
		return err
	}
	p.line = l
	root.SetArgs(append([]string{}, l.args...))
	return root.ExecuteContext(ctx)
}

// variable is the value of an environment variable, or empty.
func (p *program) variable(name string) string {
	var found string
	for _, kv := range p.environ {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			found = v
		}
	}
	return found
}

// flags registers the options that a command takes: those of the flag form for
// the empty name.
func (p *program) flags(c *cobra.Command, command string) {
	for _, r := range p.rows {
		if !r.taken(command) {
			continue
		}
		v := r.bind(&p.settings)
		f := c.Flags().VarPF(v, r.name, r.short, r.usage)
		if v.isBool {
			f.NoOptDefVal = "true"
		}
		p.completeFlag(c, r)
	}
	c.SetFlagErrorFunc(flagError)
}

// taken says whether a command takes the option.
func (r flagRow) taken(command string) bool {
	switch r.on {
	case "*":
		return true
	case "":
		return command == ""
	}
	for name := range strings.FieldsSeq(r.on) {
		if name == command {
			return true
		}
	}
	return false
}

// flagError puts the parser's errors in one sentence of ours.
func flagError(c *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		invalid *pflag.InvalidValueError
		missing *pflag.ValueRequiredError
	)
	switch {
	case errors.As(err, &unknown):
		return unknownOption(c, unknown)
	case errors.As(err, &invalid):
		return usagef("--%s %s: %v", invalid.GetFlag().Name, invalid.GetValue(), errors.Unwrap(invalid))
	case errors.As(err, &missing):
		return usagef("--%s needs an argument", missing.GetSpecifiedName())
	}
	return usagef("%v", err)
}

// unknownOption names the option that comes nearest.
func unknownOption(c *cobra.Command, err *pflag.NotExistError) error {
	name := err.GetSpecifiedName()
	if shorts := err.GetSpecifiedShortnames(); shorts != "" {
		return &usageError{"there is no option -" + name, "see " + c.CommandPath() + " --help"}
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	hint := "see " + c.CommandPath() + " --help"
	if near := nearest(name, names); near != "" {
		hint = "the nearest is --" + near + "; options are never abbreviated"
	}
	return &usageError{"there is no option --" + name, hint}
}
