package main

import (
	"strings"
	"testing"
)

// TestStatusLine checks what a terminal and a pipe get of the same lines.
func TestStatusLine(t *testing.T) {
	t.Parallel()
	speak := func(columns int) string {
		var b strings.Builder
		u := &tui{out: &b, err: &b, width: func() int { return columns }}
		u.Waiting("starting the proxy")
		u.Waiting("starting the proxy")
		u.Waiting("pulling the image, which is large")
		u.Tell("the proxy runs")
		u.Waiting("swapping")
		u.settle()
		return b.String()
	}
	const clear = "\r\x1b[K"
	terminal := "T: starting the pro" + clear + "T: pulling the imag" + clear + "T: the proxy runs\nT: swapping" + clear
	if got := speak(20); got != terminal {
		t.Errorf("terminal:\n got %q\nwant %q", got, terminal)
	}
	pipe := "T: starting the proxy\nT: pulling the image, which is large\nT: the proxy runs\nT: swapping\n"
	if got := speak(0); got != pipe {
		t.Errorf("pipe:\n got %q\nwant %q", got, pipe)
	}
}

// TestHelpStyle checks the words of the flag table: a verb first, no full stop.
func TestHelpStyle(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, r := range flagTable() {
		first := r.usage[:1]
		if strings.ToLower(first) != first || strings.HasSuffix(r.usage, ".") {
			t.Errorf("--%s: %q begins with a capital or ends with a full stop", r.name, r.usage)
		}
		if names[r.name] {
			t.Errorf("--%s stands twice in the table", r.name)
		}
		names[r.name] = true
		if v := r.bind(&settings{}); (r.arg == "") != v.isBool {
			t.Errorf("--%s: a switch takes no argument, and all else does", r.name)
		}
	}
}
