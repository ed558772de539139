package proxy

import (
	"context"
	"net"
	"sync"
	"time"
)

// presence is whether the client is there, or has been away for so long that nobody should wait for it.
type presence struct {
	mu      sync.Mutex
	present bool
	away    chan struct{} // closed when the client is away
	back    chan struct{} // closed when the client is there
}

func newPresence() *presence {
	p := &presence{present: true, away: make(chan struct{}), back: make(chan struct{})}
	close(p.back)
	return p
}

// set says whether the client is there.
func (p *presence) set(there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.present && !there:
		p.back = make(chan struct{})
		close(p.away)
	case !p.present && there:
		p.away = make(chan struct{})
		close(p.back)
	}
	p.present = there
}

// now returns a channel that is closed once the client is away, and one that is closed once it is there.
func (p *presence) now() (away, back <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.away, p.back
}

// when calls f once happened is closed, unless stop is called before; stop says whether f was called, and waits for it.
func when(happened <-chan struct{}, f func()) (stop func() bool) {
	var wg sync.WaitGroup
	called, stopped := false, make(chan struct{})
	wg.Go(func() {
		select {
		case <-happened:
			called = true
			f()
		case <-stopped:
		}
	})
	return func() bool {
		close(stopped)
		wg.Wait()
		return called
	}
}

// watchLink follows the transport under the tunnel: without one for the away time, the client is away.
func (s *session) watchLink(over <-chan struct{}) {
	for {
		up, changed := s.link()
		away := time.NewTimer(s.awayTime)
		if up {
			away.Stop()
			s.presence.set(true)
		}
		select {
		case <-changed:
			away.Stop()
			continue
		case <-over:
			away.Stop()
			return
		case <-away.C:
		}
		s.log.Warn("the client is away: callers are refused until it is back", "after", s.awayTime)
		s.presence.set(false)
		select {
		case <-changed:
		case <-over:
			return
		}
	}
}

// socket is a listening socket that is closed while the client is away.
type socket struct {
	ended chan struct{} // the client has closed it

	mu   sync.Mutex
	l    net.Listener
	over bool // ended is closed, or about to be
}

// end closes the socket for good.
func (k *socket) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	_ = k.l.Close() // fails while the client is away
	close(k.ended)
}

// listen opens the socket again, and says whether it is open.
func (k *socket) listen(ctx context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return false, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", k.l.Addr().String())
	if err != nil {
		return false, err
	}
	k.l = l
	return true, nil
}

// acceptPresent accepts from k while the client is there. It returns when k is ended or fails.
func (s *session) acceptPresent(ctx context.Context, k *socket, number uint32) {
	for {
		l := k.l // only listen, below, changes it
		away, _ := s.presence.now()
		stop := when(away, func() { _ = l.Close() }) // ends acceptAll, and refuses who was not accepted yet
		s.acceptAll(l, number)
		if !stop() {
			return
		}
		_, back := s.presence.now()
		select {
		case <-k.ended:
			return
		case <-back:
		}
		if ok, err := k.listen(ctx); !ok {
			if err != nil {
				s.log.Warn("listening again", "error", err)
			}
			return
		}
	}
}
