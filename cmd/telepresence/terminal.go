//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// screen is what stands behind a stream of ours, at one moment.
type screen struct {
	columns int  // 0 if it is no terminal
	ours    bool // nobody else draws on it
}

// screenOf looks at a file. A terminal is not ours while another process group
// has it (the user's process) or while it is in raw mode (a container's).
func screenOf(f *os.File) screen {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return screen{}
	}
	s := screen{columns: 80}
	if columns, _, err := term.GetSize(fd); err == nil && columns > 0 {
		s.columns = columns
	}
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	mode, modeErr := unix.IoctlGetTermios(fd, getTermios)
	s.ours = err == nil && group == unix.Getpgrp() && modeErr == nil && mode.Lflag&unix.ICANON != 0
	return s
}
