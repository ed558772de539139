package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestContract checks that docs/contract.md has a row with a test for every
// option of the flag form; that the tests exist is the link rule's business.
func TestContract(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| (.*) \| .*\]\(\.\./.*\) *.*\|$`)
	held := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		for option := range strings.SplitSeq(m[1], ", ") {
			held[strings.Trim(option, "`")] = true
		}
	}
	for _, r := range flagTable() {
		if r.taken("") && !held["--"+r.name] {
			t.Errorf("docs/contract.md names no test for --%s", r.name)
		}
	}
}
