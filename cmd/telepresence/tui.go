package main

// This file is the only one that writes to the terminal. The law of the voice:
//
//   - stdout belongs to the user's process; a sub-command's result (a list, a
//     version, help) is the only thing of ours that goes there.
//   - Everything else goes to stderr, each line with the prefix "T: ".
//   - Lines begin in lower case and end without a full stop. One fact a line.
//   - An error is the problem in one sentence. What to do about it follows on a
//     line of its own: "T: hint: ".
//   - What is waited for is shown on a line that the next one replaces, if
//     stderr is a terminal. While the user's process has that terminal, it is
//     not shown. In a file or a pipe each change is a line that stays.
//   - No colours, no spinners, no decoration.

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// prefix begins every line of ours on stderr.
const prefix = "T: "

// tui is the program's voice. Its methods may be called at any time from any
// goroutine.
type tui struct {
	out, err io.Writer
	screen   func() screen // behind err, now

	mu      sync.Mutex // guards the fields below, and the order of lines on err
	status  string     // what the transient line shows
	waiting string     // the last line of Waiting, so that it isn't repeated
}

// newTUI speaks on two files.
func newTUI(out, err *os.File) *tui {
	return &tui{out: out, err: err, screen: func() screen { return screenOf(err) }}
}

// Tell shows a line that stays.
func (u *tui) Tell(line string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waiting = ""
	u.lineLocked(line)
}

// Warn shows a line about something with which the session goes on.
func (u *tui) Warn(line string) { u.Tell("warning: " + line) }

// Waiting shows what is waited for now, until the next line; empty, nothing.
func (u *tui) Waiting(line string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if line == u.waiting {
		return
	}
	if u.waiting = line; line == "" {
		u.clearLocked()
		return
	}
	at := u.screen()
	switch {
	case at.columns == 0:
		u.lineLocked(line)
		return
	case !at.ours:
		return
	}
	u.clearLocked()
	text := []rune(prefix + line)
	if len(text) >= at.columns {
		text = text[:at.columns-1]
	}
	u.status = string(text)
	fmt.Fprint(u.err, u.status)
}

// fail shows an error and what it advises.
func (u *tui) fail(err error) {
	u.Tell(err.Error())
	if hint := hintOf(err); hint != "" {
		u.Tell("hint: " + hint)
	}
}

// result writes a sub-command's result to stdout.
func (u *tui) result(text string) error {
	u.settle()
	_, err := io.WriteString(u.out, text)
	return err
}

// settle removes the transient line, before someone else writes.
func (u *tui) settle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearLocked()
}

// ask puts a question and says whether the answer was yes. Where nobody can
// answer it is no.
func (u *tui) ask(in io.Reader, question string) bool {
	if u.screen().columns == 0 {
		return false
	}
	u.mu.Lock()
	u.clearLocked()
	fmt.Fprint(u.err, prefix+question+" [y/N] ")
	u.mu.Unlock()
	answer, _ := bufio.NewReader(in).ReadString('\n')
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}

// Write passes the log on to stderr (--logfile -), a whole line at a time.
func (u *tui) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearLocked()
	return u.err.Write(p)
}

func (u *tui) lineLocked(text string) {
	u.clearLocked()
	end := "\n"
	if u.screen().columns > 0 {
		end = "\r\n" // it may be in raw mode
	}
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		b.WriteString(prefix + line + end)
	}
	fmt.Fprint(u.err, b.String())
}

func (u *tui) clearLocked() {
	if u.status != "" && u.screen().ours {
		fmt.Fprint(u.err, "\r\x1b[K")
	}
	u.status = ""
}
