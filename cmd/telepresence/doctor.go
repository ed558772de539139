package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/telepresence/telepresence/pkg/dockerrun"
	"github.com/telepresence/telepresence/pkg/doctor"
	"github.com/telepresence/telepresence/pkg/k8s"
	"github.com/telepresence/telepresence/pkg/mount"
	"github.com/telepresence/telepresence/pkg/vpn/host"
	"github.com/telepresence/telepresence/pkg/vpn/sandbox"
)

func (p *program) newDoctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check what a session needs, on this machine and in the cluster, and say what to do",
		RunE: func(c *cobra.Command, _ []string) error {
			return p.runDoctor(c.Context(), p.checkGroups())
		},
	}
}

// checkGroups collects the checks of the packages that do the work.
func (p *program) checkGroups() []checkGroup {
	cluster, rights := k8s.Checks(p.clusterConfig()), []doctor.Check(nil)
	if i := slices.IndexFunc(cluster, func(c doctor.Check) bool { return strings.HasPrefix(c.Name, "right to ") }); i >= 0 {
		cluster, rights = cluster[:i], cluster[i:]
	}
	return []checkGroup{
		{title: "the cluster", must: true, checks: cluster},
		{title: "rights in the namespace, and the way to its pods", checks: rights}, // not every session needs all
		{title: "--method inject-tcp", method: true, checks: sandbox.Checks()},
		{title: "--method vpn-tcp", method: true, checks: host.Checks()},
		{title: "--docker-run", method: true, checks: dockerrun.Checks()},
		{title: "the pod's files (--mount)", checks: mount.Checks()},
	}
}

func (p *program) runDoctor(ctx context.Context, groups []checkGroup) error {
	p.ui.Waiting("checking")
	findings := runChecks(ctx, groups)
	if err := p.showFindings(findings); err != nil {
		return err
	}
	return verdict(groups, findings)
}

func (p *program) showFindings(findings []finding) error {
	if p.settings.output == "json" {
		return p.resultJSON(findings)
	}
	var b strings.Builder
	group := ""
	for _, f := range findings {
		if f.Group != group {
			group = f.Group
			b.WriteString(group + "\n")
		}
		switch {
		case !f.OK:
			fmt.Fprintf(&b, "  ✗ %s: %s\n", f.Check, f.Fault)
			if f.Fix != "" {
				fmt.Fprintf(&b, "      fix: %s\n", f.Fix)
			}
		case f.Detail != "":
			fmt.Fprintf(&b, "  ✓ %s: %s\n", f.Check, f.Detail)
		default:
			fmt.Fprintf(&b, "  ✓ %s\n", f.Check)
		}
	}
	return p.ui.result(b.String())
}
