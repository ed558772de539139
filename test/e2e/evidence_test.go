package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// logs are the ends of the log files and of the processes' output.
func (s *script) logs() string {
	var text strings.Builder
	logs, _ := filepath.Glob(filepath.Join(s.folder, "*.log"))
	for _, path := range logs {
		content, err := os.ReadFile(path)
		fmt.Fprintf(&text, "\n== %s (%v)\n%s", filepath.Base(path), err, tail(string(content), 80))
	}
	for _, p := range s.processes {
		fmt.Fprintf(&text, "\n== process %s (%v)\n%s", p.name, p.cmd.ProcessState, tail(p.output(), 40))
	}
	return text.String()
}

// state is what the namespace looks like, in kubectl's words.
func (s *script) state(ctx context.Context) string {
	var text strings.Builder
	for _, question := range []string{
		"get pods --output=wide --show-labels", "get deployments,statefulsets,replicasets", "get endpointslices",
		"get events --sort-by=.metadata.creationTimestamp",
	} {
		args := append([]string{"--namespace", s.namespace}, strings.Fields(question)...)
		cmd := exec.CommandContext(ctx, lookUp(s.cluster.path, "kubectl"), args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+s.cluster.kubeconfig)
		out, err := cmd.CombinedOutput()
		fmt.Fprintf(&text, "\n== kubectl %s (%v)\n%s", question, err, tail(string(out), 60))
	}
	return text.String()
}

// tail is a text's last lines.
func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}
