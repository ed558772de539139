package main

import (
	"slices"
	"strings"
	"testing"
)

// TestSplitLine checks where a line is cut.
func TestSplitLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"":                              "[] []",
		"-s web":                        "[-s web] []",
		"-s web --run a --run b":        "[-s web] run[a --run b]",
		"--run=a b":                     "[] run[a b]",
		"--docker-run -it --run x":      "[] docker-run[-it --run x]",
		"--env-file -x --run a":         "[--env-file -x] run[a]", // one dash may begin an argument
		"--logfile - --run a":           "[--logfile -] run[a]",
		"--namespace=--run --run a":     "[--namespace=--run] run[a]",
		"--swap-deployment --run a":     "--swap-deployment needs an argument, NAME[:CONTAINER], but --run follows",
		"-s --expose=80":                "-s needs an argument, NAME[:CONTAINER], but --expose follows",
		"-s":                            "-s needs an argument, NAME[:CONTAINER]",
		"--run=":                        "--run needs an argument, COMMAND ARGS...",
		"-- --run a":                    "[-- --run a] []",
		"--nonsense --run a":            "[--nonsense] run[a]",
		"--verbose --run-shell --run a": "[--verbose --run-shell] run[a]",
	} {
		l, err := splitLine(flagTable(), strings.Fields(line))
		got := "[" + strings.Join(l.args, " ") + "] " + l.swallow + "[" + strings.Join(l.rest, " ") + "]"
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", line, got, want)
		}
	}
}

// FuzzSplitLine checks that no word is lost or reordered.
func FuzzSplitLine(f *testing.F) {
	f.Add("-s web --run a b")
	f.Add("--docker-run=x")
	f.Add("--namespace --run")
	f.Fuzz(func(t *testing.T, text string) {
		words := strings.Fields(text)
		l, err := splitLine(flagTable(), words)
		if err != nil {
			return
		}
		whole := l.args
		if l.swallow != "" {
			whole = slices.Clone(l.args)
			if option := "--" + l.swallow; words[len(l.args)] == option {
				whole = append(append(whole, option), l.rest...)
			} else {
				whole = append(append(whole, option+"="+l.rest[0]), l.rest[1:]...)
			}
		}
		if !slices.Equal(whole, words) {
			t.Errorf("%q became %q", words, whole)
		}
	})
}
