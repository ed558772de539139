package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/telepresence/telepresence/pkg/dockerrun"
	"github.com/telepresence/telepresence/pkg/k8s"
	"github.com/telepresence/telepresence/pkg/session"
)

func (p *program) newLeaveCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "leave [NAME | --all]",
		Short:   "End a session from anywhere, and put back what it changed",
		Example: "  telepresence leave web\n  telepresence leave statefulset/db\n  telepresence leave --all",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return noStray(c, args[1:])
			}
			return nil
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return p.asked(c, workloads), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			return p.runLeave(c.Context(), strings.Join(args, ""))
		},
	}
}

func (p *program) runLeave(ctx context.Context, name string) error {
	if (name == "") != p.settings.all {
		return &usageError{"leave wants the name of a workload, or --all", "telepresence list shows what there is"}
	}
	c, err := p.connect(p.clusterConfig())
	if err != nil {
		return err
	}
	sessions, err := c.Sessions(ctx, false)
	if err != nil {
		return err
	}
	chosen := choose(sessions, name)
	if len(chosen) == 0 && !p.settings.all {
		return &absentError{name, c.Namespace(), sessions}
	}
	left := []k8s.Session{}
	var errs []error
	for _, s := range chosen {
		if err := p.leave(ctx, c, s); err != nil {
			errs = append(errs, fmt.Errorf("leaving %s: %w", s.Workload, err))
			continue
		}
		left = append(left, s)
	}
	p.sweep(ctx)
	if p.settings.output == "json" {
		errs = append(errs, p.resultJSON(left))
	} else if len(chosen) == 0 {
		p.ui.Tell("there are no sessions in namespace " + c.Namespace())
	}
	return errors.Join(errs...)
}

// leave ends one session.
func (p *program) leave(ctx context.Context, c cluster, s k8s.Session) error {
	if s.Problem != "" {
		return errors.New(s.Problem)
	}
	if s.Alive {
		p.ui.Warn(fmt.Sprintf("%s is in use by %s, whose session ends", s.Workload, s.Owner))
	}
	p.ui.Waiting("putting back " + s.Workload)
	if err := c.Restore(ctx, s.Record, p.ui.Waiting); err != nil {
		return err
	}
	p.ui.Tell(s.Workload + " is back as it was")
	return nil
}

// sweepPatience is how long docker has for what a session has left in it.
const sweepPatience = 20 * time.Second

// sweepKilled removes what this machine's sessions have left that were killed:
// mounts and files here, and containers, of which there are none where there is
// no docker.
func (p *program) sweepKilled(ctx context.Context) {
	if err := errors.Join(session.SweepFiles(), dockerrun.SweepFiles()); err != nil {
		p.ui.Warn(err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, sweepPatience)
	defer cancel()
	engine, err := dockerrun.Connect(ctx, dockerrun.ConnectConfig{CLI: "docker", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return
	}
	defer engine.Close()
	if err := engine.Sweep(ctx); err != nil {
		p.ui.Warn(err.Error())
	}
}

// workloads names those that sessions are on.
func workloads(ctx context.Context, c cluster) ([]string, error) {
	sessions, err := c.Sessions(ctx, false)
	var names []string
	for _, s := range sessions {
		names = append(names, s.Workload)
	}
	return names, err
}
