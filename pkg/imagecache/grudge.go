package imagecache

import (
	"maps"
	"sync"
	"time"
)

// grudge is a kind of fault that is held against a peer.
type grudge int

// The grudges.
const (
	shunned grudge = iota // it broke, or lied: it is asked when nobody else is left
	slow                  // another overtook it: it is asked last
)

// grudges are what is held against peers, each for a while. The zero value holds
// none. Safe for concurrent use.
type grudges struct {
	mu    sync.Mutex // guards until
	until map[against]time.Time
}

// against is a grudge and the peer that it is held against.
type against struct {
	grudge grudge
	peer   string
}

// hold holds a grudge against a peer, and forgets those whose time is over: nodes
// come and go.
func (g *grudges) hold(what grudge, peer string, d time.Duration) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.until == nil {
		g.until = make(map[against]time.Time)
	}
	maps.DeleteFunc(g.until, func(_ against, end time.Time) bool { return !now.Before(end) })
	g.until[against{what, peer}] = now.Add(d)
}

// held tells whether a grudge is held against a peer now.
func (g *grudges) held(what grudge, peer string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.until[against{what, peer}])
}
