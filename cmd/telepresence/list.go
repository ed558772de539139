package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/telepresence/telepresence/pkg/k8s"
)

func (p *program) newListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the sessions in a namespace: what is swapped, by whom, since when",
		Long: `List the sessions in a namespace: what is swapped, by whom, since when.

A session whose state is "gone" has lost its client for more than a minute; the
next session on its workload restores it, and so does telepresence leave.`,
		RunE: func(c *cobra.Command, _ []string) error { return p.runList(c.Context()) },
	}
}

func (p *program) runList(ctx context.Context) error {
	c, err := p.connect(p.clusterConfig())
	if err != nil {
		return err
	}
	sessions, err := c.Sessions(ctx, p.settings.namespaces)
	if err != nil {
		return err
	}
	switch {
	case p.settings.output == "json":
		return p.resultJSON(append([]k8s.Session{}, sessions...)) // [] rather than null
	case len(sessions) > 0:
		return p.ui.result(sessionTable(sessions))
	case p.settings.namespaces:
		p.ui.Tell("there are no sessions")
	default:
		p.ui.Tell(fmt.Sprintf("there are no sessions in namespace %s", c.Namespace()))
	}
	return nil
}

// sessionTable is a line for each session.
func sessionTable(sessions []k8s.Session) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	row := func(cells ...string) { _, _ = w.Write([]byte(strings.Join(cells, "\t") + "\n")) }
	row("NAMESPACE", "WORKLOAD", "CONTAINER", "OWNER", "SINCE", "STATE")
	for _, s := range sessions {
		state := "in use"
		switch {
		case s.Problem != "":
			state = s.Problem
		case !s.Alive:
			state = "gone" // its client is; telepresence leave restores it
		}
		row(s.Namespace, s.Workload, s.Container, s.Owner, s.Since.Local().Format(time.DateTime), state)
	}
	w.Flush()
	return b.String()
}
