package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const rootLong = `Run a local process as if it were in a pod of a Kubernetes cluster: its network,
names, environment and files are the pod's, and the pod's traffic comes to it.
Nothing else changes on this machine or in the cluster, and nothing stays behind.`

const rootExample = `  telepresence --swap-deployment web --expose 8080 --run npm start
  telepresence --swap-deployment web:app --expose 3000:80 --run-shell
  telepresence --new-deployment try --docker-run --rm -it -v $PWD:/src node:20`

// grace is how long a proxy waits for a client that is gone: long enough for a
// laptop that changes networks, short enough for whoever needs the originals.
const grace = time.Minute

// newRoot makes the command tree: the flag form, and the sub-commands.
func (p *program) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:               "telepresence",
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: p.name},
		Short:             "Run a process as if it were in a pod",
		Long:              rootLong,
		Example:           rootExample,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              noStray,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return p.configure(c) },
		RunE:              func(c *cobra.Command, _ []string) error { return p.runRoot(c.Context(), c.Flags().Changed) },
	}
	root.SetOut(p.streams.out)
	root.SetErr(p.streams.err)
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { p.exitWith(p.ui.result(helpText(p.rows, c))) })
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "help", RunE: func(*cobra.Command, []string) error {
		return usagef("help is an option: %s --help", p.name)
	}})
	p.flags(root, "")
	root.AddCommand(p.subCommands()...)
	p.finish(root.Commands())
	return root
}

// finish gives commands below the root their options.
func (p *program) finish(commands []*cobra.Command) {
	for _, c := range commands {
		if c.Args == nil {
			c.Args = noStray
		}
		p.flags(c, commandName(c))
		p.finish(c.Commands())
	}
}

// subCommands lists what stands beside the flag form.
func (p *program) subCommands() []*cobra.Command {
	return []*cobra.Command{p.newListCmd(), p.newLeaveCmd(), p.newDoctorCmd(), p.newImageCacheCmd(), p.newVersionCmd(), p.newCompletionCmd()}
}

// runRoot is the flag form: its options become one call of a session.
func (p *program) runRoot(ctx context.Context, typed func(string) bool) error {
	s := &p.settings
	if s.version {
		return p.ui.result(version + "\n")
	}
	p.takeSwallowed()
	given := func(name string) bool { return typed(name) || name == p.line.swallow }
	if err := judge(s, given); err != nil {
		return err
	}
	log, closeLog, err := openLog(s.logfile, s.verbose, p.ui)
	if err != nil {
		return err
	}
	defer closeLog()

	o := s.Options
	o.Version, o.AgentImage, o.Grace = version, p.agentImage(), grace
	o.Environ = p.environ
	o.Stdin, o.Stdout, o.Stderr = p.streams.in, p.streams.out, p.streams.err
	o.Log = log
	log.Info("telepresence begins", "version", version, "options", fmt.Sprintf("%+v", loggable(s)))
	p.exit, err = p.runSession(ctx, o, p.ui)
	log.Info("telepresence ends", "code", p.exit, "error", err)
	return err
}

// takeSwallowed gives --run or --docker-run what followed it.
func (p *program) takeSwallowed() {
	switch p.line.swallow {
	case "run":
		p.settings.Command = p.line.rest
	case "docker-run":
		p.settings.Docker = p.line.rest
	}
}

// loggable is what the log says of the command line: the user's command is
// left out, since its arguments may be secrets.
func loggable(s *settings) map[string]any {
	return map[string]any{
		"swap": s.Swap, "new": s.New, "standing": s.Standing, "expose": s.Expose, "method": s.Method,
		"context": s.Context, "namespace": s.Namespace, "mount": s.Mount, "docker": len(s.Docker) > 0,
	}
}

// noStray refuses arguments that no option takes.
func noStray(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := &usageError{text: fmt.Sprintf("unexpected argument %q", args[0]), hint: "see " + c.CommandPath() + " --help"}
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	if near := nearest(args[0], names); near != "" {
		err.hint = "the nearest sub-command is " + near
	} else if strings.Contains(args[0], " ") || c.Flags().NFlag() > 0 {
		err.hint = "a command to run follows --run"
	}
	return err
}

// exitWith makes an error of a place that can't return one the exit code.
func (p *program) exitWith(err error) {
	if err != nil {
		p.exit = exitFailed
	}
}
