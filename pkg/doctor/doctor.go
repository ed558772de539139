// Package doctor names one thing that must hold on a machine or a cluster for a session to work, and how to
// find out whether it does. Each package offers checks of its own; this one only says what a check is.
package doctor

import "context"

// Check is one thing that must hold. It changes nothing, and any number of checks may run at once.
type Check struct {
	// Name says what must hold, in a few words: "port-forward over WebSocket".
	Name string
	// Run finds out. detail is a short fact for a check that holds (a version, an address) and may be
	// empty; an error says what is wrong, and what it means. Run ends with ctx.
	Run func(ctx context.Context) (detail string, err error)
	// Fix says what to do when Run returns an error; the error's own Hint() string, if it has one, wins.
	Fix string
}
