package e2e

import (
	"flag"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite what the scripts compare with")

func TestScripts(t *testing.T) {
	t.Parallel()
	hearHangUps()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               connect(t).setup,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Cmds:                commands(),
	})
}

// A command is one word of the scripts: it returns what it says, or why it
// did not succeed.
type command func(s *script, ts *testscript.TestScript, args []string) (output string, err error)

// words are the commands beside testscript's own.
func words() map[string]command {
	return map[string]command{
		"admin":      (*script).admin,
		"apply":      (*script).apply,
		"as":         (*script).as,
		"await":      (*script).await,
		"cut":        (*script).cutLine,
		"deploy":     (*script).deploy,
		"elsewhere":  (*script).elsewhere,
		"eventually": (*script).eventually,
		"finish":     (*script).finish,
		"freeport":   (*script).freeport,
		"incluster":  (*script).incluster,
		"leftovers":  (*script).leftovers,
		"line":       (*script).lay,
		"mend":       (*script).mend,
		"resize":     (*script).resize,
		"signal":     (*script).signal,
		"start":      (*script).start,
		"terminal":   (*script).startInTerminal,
		"type":       (*script).keys,
		"workload":   (*script).workload,
	}
}

// commands are the words in testscript's form: with "!" before it, a command
// has to be without success.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, bool, []string){}
	for word, run := range words() {
		all[word] = func(ts *testscript.TestScript, negated bool, args []string) {
			output, err := run(ts.Value(scriptKey{}).(*script), ts, args)
			_, _ = ts.Stdout().Write([]byte(output))
			switch {
			case err != nil && !negated:
				ts.Fatalf("%s %s: %v", word, strings.Join(args, " "), err)
			case err != nil:
				_, _ = ts.Stderr().Write([]byte(err.Error() + "\n"))
			case negated:
				ts.Fatalf("%s %s: succeeded, and should not", word, strings.Join(args, " "))
			}
		}
	}
	return all
}
