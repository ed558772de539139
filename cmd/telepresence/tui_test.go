package main

import (
	"os"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// TestStatusLine checks what a terminal, a terminal that someone else has, and
// a pipe get of the same lines.
func TestStatusLine(t *testing.T) {
	t.Parallel()
	const clear = "\r\x1b[K"
	for _, tt := range []struct {
		name string
		at   screen
		want string
	}{
		{"terminal", screen{20, true}, "T: starting the pro" + clear + "T: pulling the imag" + clear + "T: the proxy runs\r\nT: swapping" + clear},
		{"somebody's terminal", screen{20, false}, "T: the proxy runs\r\n"},
		{"pipe", screen{}, "T: starting the proxy\nT: pulling the image, which is large\nT: the proxy runs\nT: swapping\n"},
	} {
		var b strings.Builder
		u := &tui{out: &b, err: &b, screen: func() screen { return tt.at }}
		u.Waiting("starting the proxy")
		u.Waiting("starting the proxy")
		u.Waiting("pulling the image, which is large")
		u.Tell("the proxy runs")
		u.Waiting("swapping")
		u.Waiting("")
		u.settle()
		if got := b.String(); got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

// TestScreen looks at real terminals and at what is none.
func TestScreen(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if got := screenOf(w); got != (screen{}) {
		t.Errorf("a pipe: %+v", got)
	}
	controller, terminal, err := pty.Open()
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	defer controller.Close()
	defer terminal.Close()
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 25, Cols: 33}); err != nil {
		t.Fatal(err)
	}
	if got := screenOf(terminal); got != (screen{columns: 33}) { // not this process's terminal
		t.Errorf("a terminal: %+v", got)
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
