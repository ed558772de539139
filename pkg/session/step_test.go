package session

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestThrough(t *testing.T) {
	t.Parallel()
	broken, stuck := errors.New("broken"), errors.New("stuck")
	var done []string
	note := func(what string, err error) func(context.Context) error {
		return func(ctx context.Context) error {
			if ctx.Err() != nil {
				what += " too late"
			}
			done = append(done, what)
			return err
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := through(ctx, []step{
		{"one", note("do one", nil), note("undo one", stuck)},
		{"two", note("do two", nil), nil},
		{"three", func(context.Context) error { cancel(); return nil }, note("undo three", nil)},
		{"four", func(context.Context) error { return broken }, note("undo four", nil)},
		{"five", note("do five", nil), note("undo five", nil)},
	})
	if want := []string{"do one", "do two", "undo four", "undo three", "undo one"}; !slices.Equal(done, want) {
		t.Errorf("done is %v, want %v", done, want)
	}
	if !errors.Is(err, broken) || !errors.Is(err, stuck) {
		t.Errorf("error is %v, want both", err)
	}
}
