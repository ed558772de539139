package session

import (
	"context"
	"errors"
	"testing"
)

// checked is a place whose check has that result.
type checked struct {
	place
	err error
}

func (c checked) check(context.Context) error { return c.err }

// TestFirstPlace checks which place is taken where the user names no method, and
// what is said.
func TestFirstPlace(t *testing.T) {
	t.Parallel()
	closed, rootless := errors.New("user namespaces are closed"), errors.New("there is no sudo")
	for _, tt := range []struct {
		name             string
		sandbox, machine error
		takesMachine     bool
		err              error
		said             string
	}{
		{"the sandbox", nil, nil, false, nil, ""},
		{"the sandbox alone", nil, rootless, false, nil, ""},
		{"the machine", closed, nil, true, nil, "method inject-tcp can't be had here (user namespaces are closed): using vpn-tcp"},
		{"neither", closed, rootless, true, closed, ""},
	} {
		var ev said
		s := &session{ev: &ev}
		sandbox, machine := checked{err: tt.sandbox}, checked{err: tt.machine}
		err := s.takeFirst(t.Context(), sandbox, machine)
		taken := s.place == place(machine) && tt.sandbox != nil
		if !errors.Is(err, tt.err) || ev.all() != tt.said || taken != tt.takesMachine {
			t.Errorf("%s: %v, said %q; the machine is taken: %v", tt.name, err, ev.all(), taken)
		}
	}
}
