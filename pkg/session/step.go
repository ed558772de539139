package session

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How long putting one step back may take. An original that has to pull its
// image again is waited for; a cluster that doesn't answer is not waited for
// for ever.
const undoTimeout = 5 * time.Minute

// step is one thing a session does, and what puts it back. Either may be nil.
type step struct {
	name string
	do   func(context.Context) error
	undo func(context.Context) error
}

// through does the steps in order, then undoes in reverse order those that were
// begun: a step that broke in the middle may have done a part. An undo runs to
// its end whatever ctx says, and its error doesn't keep the others from running.
// A step that ctx has ended is no error: somebody has asked for it.
func through(ctx context.Context, steps []step) (err error) {
	for _, s := range steps {
		if s.undo != nil {
			defer func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
				defer cancel()
				if undoErr := s.undo(ctx); undoErr != nil {
					err = errors.Join(err, fmt.Errorf("putting back: %w", undoErr))
				}
			}()
		}
		if s.do == nil {
			continue
		}
		switch err := s.do(ctx); {
		case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}
