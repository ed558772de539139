package resume

import (
	"os"
	"time"
)

// gate lets goroutines wait for a change of what a mutex guards. All its methods need that mutex held.
type gate struct {
	ch chan struct{} // nil while nobody waits
}

// wait returns a channel that is closed by the next open.
func (g *gate) wait() <-chan struct{} {
	if g.ch == nil {
		g.ch = make(chan struct{})
	}
	return g.ch
}

// open wakes everybody who waits.
func (g *gate) open() {
	if g.ch != nil {
		close(g.ch)
		g.ch = nil
	}
}

// waitUntil waits for changed, at most until the deadline (the zero time is none), whose passing is
// os.ErrDeadlineExceeded.
func waitUntil(changed <-chan struct{}, deadline time.Time) error {
	if deadline.IsZero() {
		<-changed
		return nil
	}
	left := time.Until(deadline)
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	}
}
