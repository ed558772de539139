package sandbox

import (
	"errors"
	"io"
	"net"
	"sync"
)

// pipes carries connections on until it is closed. The zero value is ready.
type pipes struct {
	wg     sync.WaitGroup
	mu     sync.Mutex // guards the fields below
	open   map[io.Closer]bool
	closed bool
}

// keep remembers what close has to close. It closes c at once when it is too
// late for that.
func (p *pipes) keep(c io.Closer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	if p.open == nil {
		p.open = map[io.Closer]bool{}
	}
	p.open[c] = true
	return true
}

func (p *pipes) forget(c io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	_ = c.Close()
}

// accept has every connection of l served, until l or p is closed.
func (p *pipes) accept(l net.Listener, serve func(net.Conn)) {
	if !p.keep(l) {
		return
	}
	p.wg.Go(func() {
		defer p.forget(l)
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // of one connection
			}
			if p.keep(c) {
				p.wg.Go(func() {
					defer p.forget(c)
					serve(c)
				})
			}
		}
	})
}

// join carries bytes, ends and resets both ways between two TCP connections,
// until both ways have ended, and closes b.
func (p *pipes) join(a, b net.Conn) {
	if !p.keep(b) {
		return
	}
	defer p.forget(b)
	var wg sync.WaitGroup
	wg.Go(func() { carry(a, b) })
	carry(b, a)
	wg.Wait()
}

// carry carries what from sends to to.
func carry(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(to)
		reset(from)
		return
	}
	if t, ok := to.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}

// reset ends a connection so that the other end sees a reset.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// close closes everything that is open, and returns when all of it has ended.
func (p *pipes) close() {
	p.mu.Lock()
	p.closed = true
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}
