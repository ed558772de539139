package main

import (
	"errors"
	"fmt"
)

// The exit codes of the command. Those of the user's process come through as
// they are, 128+N where signal N ended it.
const (
	exitOK     = 0   // done; also after Ctrl-C, SIGTERM or SIGHUP, when all is put back
	exitUsage  = 2   // the command line, the configuration file or the environment is wrong
	exitFailed = 255 // telepresence itself could not do its part
)

// usageError is a fault in what the user wrote; nothing was touched.
type usageError struct{ text, hint string }

// Error is one sentence about what is wrong.
func (e *usageError) Error() string { return e.text }

// Hint says what to write instead, or is empty.
func (e *usageError) Hint() string { return e.hint }

// Usage marks the error as the user's words' fault; the plan's have the mark too.
func (e *usageError) Usage() {}

// usagef makes a usageError without a hint.
func usagef(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// codeOf is the exit code for an error.
func codeOf(err error) int {
	var usage interface{ Usage() }
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	default:
		return exitFailed
	}
}

// hintOf is what an error, or one it wraps, advises; empty if none does.
func hintOf(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}
