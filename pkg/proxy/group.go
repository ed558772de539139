package proxy

import "sync"

// group is the goroutines of one end. After wait has begun no more can be started.
type group struct {
	wg sync.WaitGroup

	mu     sync.Mutex // guards closed
	closed bool
}

// start runs f in a goroutine, or says that it is too late for that.
func (g *group) start(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Go(f)
	return true
}

// wait lets no more start and waits for those that run.
func (g *group) wait() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}
