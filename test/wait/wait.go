// Package wait is how the unit tests wait for what other processes and threads
// do: by looking again and again, and never by a sleep for luck.
package wait

import (
	"testing"
	"time"
)

// Until returns when cond holds. It ends the test, and names what was waited for,
// when that takes longer than patience. Only the test's own goroutine may call it.
func Until(t testing.TB, patience time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still not after %s: %s", patience, what)
		}
	}
}
