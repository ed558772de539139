package resume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// The waits between attempts to get a new transport.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 3 * time.Second
)

// Dial makes a transport with dial and a Conn on it. When the transport is lost, dial is called again, until one
// attempt succeeds or the grace is over. ctx bounds the first attempt only; cfg.Token must be the listener's.
//
// ErrBusy, ErrDenied and a VersionError are final; any other error of the first attempt is returned as it is, and the caller may
// try again.
func Dial(ctx context.Context, dial func(context.Context) (net.Conn, error), cfg Config) (*Conn, error) {
	var id sessionID
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	c := newConn(cfg.withDefaults(), id)
	t, err := c.redial(ctx, dial, false)
	if err != nil {
		return nil, err
	}
	c.next = func(ctx context.Context) (*transport, error) { return c.reconnect(ctx, dial) }
	c.start(context.WithoutCancel(ctx), t) // until Close
	return c, nil
}

// reconnect tries to get a new transport until the grace is over.
func (c *Conn) reconnect(ctx context.Context, dial func(context.Context) (net.Conn, error)) (*transport, error) {
	deadline := time.Now().Add(c.cfg.Grace)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var last error
	for wait := backoffFirst; ; wait = min(wait*2, backoffMost) {
		t, err := c.redial(ctx, dial, true)
		switch {
		case err == nil:
			return t, nil
		case errors.Is(err, ErrUnknown) || errors.Is(err, ErrDenied):
			return nil, err
		case ctx.Err() == nil || last == nil:
			last = err
		}
		c.cfg.Log.Debug("resuming", "error", err, "wait", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, fmt.Errorf("no connection for %v: %w", c.cfg.Grace, last)
			}
			return nil, ctx.Err()
		}
	}
}

// redial makes one transport and adopts it.
func (c *Conn) redial(ctx context.Context, dial func(context.Context) (net.Conn, error), resumed bool) (*transport, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	nc, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	own := c.positionLocked(resumed)
	c.mu.Unlock()
	var peer position
	err = bounded(ctx, nc, func() (err error) {
		peer, err = shakeAsDialer(nc, c.cfg.Token, c.id, own)
		return err
	})
	t := newTransport(nc)
	if err == nil {
		err = c.adopt(t, peer)
	}
	if err != nil {
		t.end(err)
		return nil, err
	}
	return t, nil
}

// bounded runs f, which uses nc, and closes nc when ctx ends meanwhile.
func bounded(ctx context.Context, nc net.Conn, f func() error) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	returned := make(chan struct{})
	defer close(returned)
	wg.Go(func() {
		select {
		case <-ctx.Done():
			_ = nc.Close() // f's error is the one that counts
		case <-returned:
		}
	})
	if err := f(); err != nil {
		return errors.Join(err, ctx.Err())
	}
	return ctx.Err()
}
