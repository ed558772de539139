package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// tasks is the work that goes on beside the steps: each from the step that
// begins it to the undo that ends it. The first that breaks ends the session.
// Safe for concurrent use.
type tasks struct {
	broken chan error // holds the first error
}

func newTasks() *tasks { return &tasks{broken: make(chan error, 1)} }

// begin runs work until the function that it returns is called, which waits for
// it. Work goes on when ctx ends: what serves the pod's callers does so until
// the originals are back. That work ends by itself without an error is no fault.
func (t *tasks) begin(ctx context.Context, name string, work func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		err := work(ctx)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return
		}
		t.report(name, err)
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// report ends the session with err, unless that is nil or it ends already.
func (t *tasks) report(name string, err error) {
	if err == nil {
		return
	}
	select {
	case t.broken <- fmt.Errorf("%s: %w", name, err):
	default:
	}
}
