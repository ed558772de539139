package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signalContext returns a context that ends at the first Ctrl-C, SIGTERM or
// SIGHUP. Further ones change nothing: what was begun is put back first, and
// the user is told so. stop must be called; it waits.
//
// SIGPIPE is received and dropped, so that a reader of stderr that goes away
// (telepresence … 2>&1 | head) doesn't end the program with the swap in place.
func signalContext(parent context.Context, tell func(string)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 8)
	ending := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup asks for
		ending = append(ending, syscall.SIGHUP)
	}
	signal.Notify(signals, append(ending, syscall.SIGPIPE)...)
	var wg sync.WaitGroup
	wg.Go(func() {
		for s := range signals {
			switch {
			case s == syscall.SIGPIPE:
			case ctx.Err() == nil:
				cancel()
			default:
				tell("putting everything back, please wait")
			}
		}
	})
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		wg.Wait()
		cancel()
	}
}
