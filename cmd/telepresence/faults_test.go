package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/session"
)

// TestFaults takes every line that the scripts about a wrong command line run,
// and checks what they can't: that its exit code is 2, that nothing goes to
// stdout, and that no session begins.
func TestFaults(t *testing.T) {
	t.Parallel()
	lines := 0
	for _, name := range []string{"expose-faults", "option-faults", "option-rules"} {
		text, err := os.ReadFile(filepath.Join("testdata", name+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			words, ok := strings.CutPrefix(line, "! exec telepresence ")
			if !ok {
				continue
			}
			lines++
			c := newCall(t)
			c.runSession = func(context.Context, session.Options, session.Events) (int, error) {
				t.Errorf("%s: a session begins", line)
				return 0, nil
			}
			if code := c.run(strings.Fields(words)); code != exitUsage {
				t.Errorf("%sexit code %d: %s", line, code, &c.stderr)
			}
			if log := c.variable("TELEPRESENCE_LOGFILE"); fileExists(log) {
				t.Errorf("%s: a log file is made", line)
			}
		}
	}
	if lines < 45 {
		t.Errorf("%d lines were found in the scripts", lines)
	}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestFaultsOfSession checks that a fault of the command line that only a
// session can find has the same exit code.
func TestFaultsOfSession(t *testing.T) {
	t.Parallel()
	c := newCall(t)
	c.runSession = func(context.Context, session.Options, session.Events) (int, error) {
		return 0, &plan.UsageError{Problem: "--run ./missing: no such file or directory"}
	}
	if code := c.run([]string{"--run", "./missing"}); code != exitUsage || c.stderr.String() != "T: --run ./missing: no such file or directory\n" {
		t.Errorf("exit code %d: %s", code, &c.stderr)
	}
}
