package resume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxShaking is how many transports may be in the handshake at once: whoever reaches the port can begin one.
const maxShaking = 32

// Listener makes Conns of the transports that a net.Listener accepts. It serves one Conn at a time: a dialer that
// comes back gets its own, and takes it over from whatever transport it had; another one gets a new Conn when there
// is none or the present one has no transport, and otherwise ErrBusy. It is safe for concurrent use.
type Listener struct {
	cfg    Config
	inner  net.Listener
	cancel func()
	wg     sync.WaitGroup
	fresh  chan *Conn
	failed chan struct{} // closed when inner has failed
	err    error         // set before failed is closed

	mu      sync.Mutex // guards current and its beginning; before Conn.mu
	current *served
}

// served is a Conn at the listening end.
type served struct {
	*Conn
	attach    chan attachment
	beginning bool // not started yet
}

// attachment is a transport whose dialer has proved itself and waits for an answer.
type attachment struct {
	hello *hello
	peer  position
	taken chan struct{} // closed when somebody answers
}

// Listen begins to accept transports from l, which it closes in the end. ctx bounds everything that comes of it.
func Listen(ctx context.Context, l net.Listener, cfg Config) *Listener {
	ctx, cancel := context.WithCancel(ctx)
	rl := &Listener{
		cfg:    cfg.withDefaults(),
		inner:  l,
		cancel: cancel,
		fresh:  make(chan *Conn),
		failed: make(chan struct{}),
	}
	rl.wg.Go(func() { rl.acceptAll(ctx) })
	rl.wg.Go(func() {
		<-ctx.Done()
		_ = l.Close() // unblocks acceptAll, which returns the error that counts
	})
	return rl
}

// Accept returns the next new Conn. It waits as long as ctx lives.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	select {
	case c := <-l.fresh:
		return c, nil
	case <-l.failed:
		return nil, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close stops accepting and closes the listener it was made of. Conns that were accepted lose their transport for
// good but are still to be closed by who accepted them.
func (l *Listener) Close() error {
	l.cancel()
	l.wg.Wait()
	return nil
}

// acceptAll shakes hands on every transport that comes.
func (l *Listener) acceptAll(ctx context.Context) {
	slots := make(chan struct{}, maxShaking)
	for {
		nc, err := l.inner.Accept()
		if err != nil {
			l.err = err
			close(l.failed)
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = nc.Close() // somebody floods the port
			continue
		}
		l.wg.Go(func() {
			defer func() { <-slots }()
			if err := l.shake(ctx, nc); err != nil {
				l.cfg.Log.Debug("transport refused", "error", err)
				_ = nc.Close() // err is the one that counts
			}
		})
	}
}

// shake does the handshake on nc and hands it to the Conn it belongs to.
func (l *Listener) shake(ctx context.Context, nc net.Conn) error {
	short, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	a := attachment{taken: make(chan struct{})}
	err := bounded(short, nc, func() (err error) {
		a.hello, a.peer, err = shakeAsListener(nc, l.cfg.Token)
		return err
	})
	if err != nil {
		return err
	}
	s, fresh, status := l.match(a)
	if status != statusOK {
		return errors.Join(a.hello.answer(status, position{buffer: minBuffer}), fmt.Errorf("answered with status %d", status))
	}
	if fresh {
		return l.begin(ctx, s, a)
	}
	return s.takeOver(short, a)
}

// match finds the Conn for a, or makes it.
func (l *Listener) match(a attachment) (s *served, fresh bool, status byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cur := l.current
	if cur != nil && ended(cur.done) {
		cur = nil
	}
	switch {
	case a.peer.resumed && cur != nil && cur.id == a.hello.id:
		return cur, false, statusOK
	case a.peer.resumed:
		return nil, false, statusUnknown
	case cur != nil && (cur.beginning || cur.attached()):
		return nil, false, statusBusy
	}
	if cur != nil {
		cur.stop() // its dialer is gone, and another has come
	}
	s = &served{Conn: newConn(l.cfg, a.hello.id), attach: make(chan attachment), beginning: true}
	s.next = s.wait
	l.current = s
	return s, true, statusOK
}

func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (c *Conn) attached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current != nil
}

// begin starts s on its first transport and hands it to Accept.
func (l *Listener) begin(ctx context.Context, s *served, a attachment) error {
	t, err := s.answer(a, statusOK)
	l.mu.Lock()
	s.beginning = false
	if err != nil {
		close(s.done)
	} else {
		s.start(ctx, t)
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case l.fresh <- s.Conn:
		return nil
	case <-ctx.Done():
	case <-s.done:
	}
	return errors.Join(s.Close(), net.ErrClosed)
}

// takeOver ends the transport that s has and gives it the new one.
func (s *served) takeOver(ctx context.Context, a attachment) error {
	s.drop(errors.New("taken over by a new transport"))
	select {
	case s.attach <- a:
		<-a.taken
		return nil
	case <-s.done:
		return errors.Join(a.hello.answer(statusUnknown, position{buffer: minBuffer}), ErrUnknown)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wait is what s does between transports.
func (s *served) wait(ctx context.Context) (*transport, error) {
	timer := time.NewTimer(s.cfg.Grace)
	defer timer.Stop()
	for {
		select {
		case a := <-s.attach:
			t, err := s.answer(a, statusOK)
			close(a.taken)
			if err == nil {
				return t, nil
			}
			s.cfg.Log.Debug("resuming", "error", err)
		case <-timer.C:
			return nil, fmt.Errorf("no connection for %v", s.cfg.Grace)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// answer ends the handshake of a and makes its transport the present one.
func (s *served) answer(a attachment, status byte) (*transport, error) {
	t := newTransport(a.hello.nc)
	s.mu.Lock()
	own := s.positionLocked(a.peer.resumed)
	s.mu.Unlock()
	err := s.adopt(t, a.peer)
	if errors.Is(err, ErrUnknown) {
		status = statusUnknown
	}
	err = errors.Join(a.hello.answer(status, own), err)
	if err != nil {
		s.mu.Lock()
		s.setCurrentLocked(nil)
		s.mu.Unlock()
		t.end(err)
		return nil, err
	}
	return t, nil
}
