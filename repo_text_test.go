package repo

import (
	"go/ast"
	"os"
	"path"
	"regexp"
	"strings"
)

// checkNolintReason wants //nolint:linter // reason.
func checkNolintReason(tr *tree, bad report) {
	whole := regexp.MustCompile(`^//nolint:[a-z0-9,]+ // \S`)
	eachComment(tr, func(s *source, c *ast.Comment) {
		if strings.HasPrefix(strings.TrimLeft(c.Text, "/ "), "nolint") && !whole.MatchString(c.Text) {
			bad(s.path, tr.line(c.Pos()), "%s: write //nolint:linter // reason", c.Text)
		}
	})
}

// checkTodoIssue wants TODO(#12).
func checkTodoIssue(tr *tree, bad report) {
	todo := regexp.MustCompile(`\b(TODO|FIXME)\b(\(#\d+\))?`)
	eachComment(tr, func(s *source, c *ast.Comment) {
		for _, m := range todo.FindAllStringSubmatch(c.Text, -1) {
			if m[2] == "" {
				bad(s.path, tr.line(c.Pos()), "%s names no issue", m[1])
			}
		}
	})
}

// eachComment calls f for every comment but those of this package, which speak
// of the rules.
func eachComment(tr *tree, f func(*source, *ast.Comment)) {
	for _, s := range tr.code {
		if s.dir == "." {
			continue
		}
		for _, g := range s.ast.Comments {
			for _, c := range g.List {
				f(s, c)
			}
		}
	}
}

func checkMergeMarker(tr *tree, bad report) {
	marker := regexp.MustCompile(`^(<{7}|>{7}|\|{7}) `)
	eachLine(tr, func(path string, n int, line string) {
		if marker.MatchString(line) {
			bad(path, n, "a merge marker was left here")
		}
	})
}

// checkMachinePath finds the paths of one machine: where this clone lies, and
// homes.
func checkMachinePath(tr *tree, bad report) {
	pattern := `/(home|Users)/[a-z0-9]+/(go|src)/|/root/go/`
	if top, err := os.Getwd(); err == nil && strings.Count(top, "/") > 1 {
		pattern += "|" + regexp.QuoteMeta(top+"/")
	}
	local := regexp.MustCompile(pattern)
	eachLine(tr, func(path string, n int, line string) {
		if m := local.FindString(line); m != "" {
			bad(path, n, "%s is a path of one machine", m)
		}
	})
}

// eachLine calls f for every line of every text file, counted from 1, but not
// for this package's, which hold planted violations.
func eachLine(tr *tree, f func(file string, n int, line string)) {
	for file, text := range tr.texts {
		if own, _ := path.Match("repo*_test.go", file); own {
			continue
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			f(file, n, strings.TrimRight(line, "\r\n"))
		}
	}
}
