package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// waiter runs f in a goroutine; stop tells it to end, and waits for that.
func waiter(f func(ended <-chan struct{})) (stop func()) {
	var wg sync.WaitGroup
	ended := make(chan struct{})
	wg.Go(func() { f(ended) })
	return func() {
		close(ended)
		wg.Wait()
	}
}

// pause waits until its time is over or it is told to end.
func pause(ctx context.Context, args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("pause", flag.ContinueOnError)
	duration := fs.Duration("for", time.Minute, "how long to wait")
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *duration)
	defer cancel()
	stop := onSignal(cancel)
	defer stop()
	<-ctx.Done()
	return nil
}

// environ prints the environment of process 1.
func environ(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("environ", flag.ContinueOnError)
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	text, err := readEnviron("/proc/1")
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(parseEnviron(text))
}

// readEnviron reads the environment of the process at dir, as that process's user where we may become it: the kernel
// shows it to nobody else but root with the right to trace.
func readEnviron(dir string) ([]byte, error) {
	text, err := os.ReadFile(dir + "/environ")
	if !errors.Is(err, os.ErrPermission) {
		return text, err
	}
	st, statErr := os.Stat(dir)
	if statErr != nil {
		return nil, errors.Join(err, statErr)
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, err
	}
	if idErr := errors.Join(syscall.Setgid(int(owner.Gid)), syscall.Setuid(int(owner.Uid))); idErr != nil {
		return nil, fmt.Errorf("%w, and becoming user %d: %w", err, owner.Uid, idErr)
	}
	return os.ReadFile(dir + "/environ")
}

// parseEnviron splits the text of /proc/PID/environ into "K=V" strings.
func parseEnviron(text []byte) []string {
	vars := []string{}
	for v := range bytes.SplitSeq(text, []byte{0}) {
		if bytes.IndexByte(v, '=') > 0 {
			vars = append(vars, string(v))
		}
	}
	return vars
}
