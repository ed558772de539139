// Package repo holds the whole repository to the rules of its house style that
// a machine can check. It reads source text only: nothing has to build.
//
// A rule is a function over a tree of files. TestHouseRules applies each to
// this repository; TestRulesFire applies each to a small planted violation and
// to text that comes close to one. CONTRIBUTING.md says the rules in words.
package repo

import (
	"fmt"
	"sort"
	"strings"
	"testing"
)

// rule is one house rule.
type rule struct {
	name  string
	why   string
	check func(*tree, report)
}

// report takes a violation: where it is and what is wrong there.
type report func(path string, line int, format string, args ...any)

// rules lists every rule, in the order of the house style.
func rules() []rule {
	return []rule{
		{"gofmt", "one layout, so that a diff shows only what changed", checkGofmt},
		{"package-comment", "one package, one capability, one sentence", checkPackageComment},
		{"package-name", "a homeless function goes to its only caller, not into a drawer", checkPackageName},
		{"imports", "who may know whom is decided here, not by whoever types first", checkImports},
		{"exported-doc", "export little, explain all of it", checkExportedDoc},
		{"no-getter", "the field's noun is the accessor's name", checkNoGetter},
		{"file-length", "one idea per file", checkFileLength},
		{"func-length", "a function is read on one screen", checkFuncLength},
		{"no-init", "what runs before main is found by nobody", checkNoInit},
		{"error-style", "a chain of errors reads as one sentence", checkErrorStyle},
		{"output", "stdout belongs to the user's process; one file writes to the terminal", checkOutput},
		{"goroutine", "nobody starts what nobody waits for", checkGoroutine},
		{"context-first", "a context is an argument, the first", checkContextFirst},
		{"context-root", "what starts from nothing is stopped by nobody", checkContextRoot},
		{"context-shelf", "a context is no shelf and lies on none", checkContextShelf},
		{"no-sleep", "a test waits for a condition, never for a while", checkNoSleep},
		{"nolint-reason", "a linter is silenced for a reason", checkNolintReason},
		{"todo-issue", "what is left to do is an issue", checkTodoIssue},
		{"merge-marker", "a conflict is resolved by a person", checkMergeMarker},
		{"links", "a page leads where it says", checkLinks},
		{"messages", "who looks for a message finds the one that is said", checkMessages},
		{"machine-path", "the repository is not tied to one machine", checkMachinePath},
	}
}

// exceptions are the places where a rule cannot hold, each with its reason. One
// that is no longer needed fails the test.
func exceptions() map[string]string {
	return map[string]string{
		// "rule path": "reason",
	}
}

func TestHouseRules(t *testing.T) {
	t.Parallel()
	tr, err := readTree(".")
	if err != nil {
		t.Fatal(err)
	}
	needless := exceptions()
	for _, r := range rules() {
		for _, v := range violations(tr, r) {
			key := r.name + " " + v.path
			if _, ok := exceptions()[key]; ok {
				delete(needless, key)
				continue
			}
			t.Errorf("%s\n\t(rule %s: %s)", v, r.name, r.why)
		}
	}
	for key := range needless {
		t.Errorf("exception %q excuses nothing any more: remove it", key)
	}
}

// violation is one place that breaks a rule.
type violation struct {
	path string
	line int
	text string
}

// String prints v as a compiler prints an error.
func (v violation) String() string { return fmt.Sprintf("%s:%d: %s", v.path, v.line, v.text) }

// violations applies one rule to a tree.
func violations(tr *tree, r rule) []violation {
	var found []violation
	r.check(tr, func(path string, line int, format string, args ...any) {
		found = append(found, violation{path, line, fmt.Sprintf(format, args...)})
	})
	sort.SliceStable(found, func(i, j int) bool {
		if c := strings.Compare(found[i].path, found[j].path); c != 0 {
			return c < 0
		}
		return found[i].line < found[j].line
	})
	return found
}
