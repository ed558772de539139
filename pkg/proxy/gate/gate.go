// Package gate lets goroutines wait, with deadlines, for a change of what a mutex guards.
package gate

import (
	"os"
	"sync"
	"time"
)

// Gate is what they wait at; the zero Gate is ready. All its methods need the mutex held.
type Gate struct {
	ch chan struct{} // nil while nobody waits
}

// Changed returns a channel that is closed by the next Open.
func (g *Gate) Changed() <-chan struct{} {
	if g.ch == nil {
		g.ch = make(chan struct{})
	}
	return g.ch
}

// Open wakes everybody who waits.
func (g *Gate) Open() {
	if g.ch != nil {
		close(g.ch)
		g.ch = nil
	}
}

// Await unlocks mu, waits for the next Open or for the deadline (the zero time is none), and locks mu again. Which of
// the two it was, the caller must find out: see Expired.
func (g *Gate) Await(mu *sync.Mutex, deadline time.Time) {
	changed := g.Changed()
	mu.Unlock()
	defer mu.Lock()
	if deadline.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

// Expired is os.ErrDeadlineExceeded once the deadline has passed; the zero time never does.
func Expired(deadline time.Time) error {
	if deadline.IsZero() || time.Now().Before(deadline) {
		return nil
	}
	return os.ErrDeadlineExceeded
}
