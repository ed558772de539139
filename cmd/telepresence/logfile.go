package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
)

// openLog opens the log file anew; "-" is stderr. done must be called last.
func openLog(path string, verbose bool, stderr io.Writer) (log *slog.Logger, done func(), err error) {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	out, done := stderr, func() {}
	if path != "-" {
		if path == "" {
			path = "telepresence.log"
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, &logError{path, err}
		}
		out, done = f, func() { f.Close() }
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})), done, nil
}

// logError is a log file that can't be written.
type logError struct {
	path string
	err  error
}

// Error says which file it is, and why.
func (e *logError) Error() string { return fmt.Sprintf("writing the log file %s: %v", e.path, e.err) }

// Unwrap is the reason.
func (e *logError) Unwrap() error { return e.err }

// Hint says how to do without the file.
func (e *logError) Hint() string { return "--logfile PATH writes it elsewhere, --logfile - to stderr" }
