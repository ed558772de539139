package session

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// How long the local process may take to listen before the swap takes effect
// without it: a queue's consumer never will, and a server started by hand in
// the shell will later.
const listenWithin = 5 * time.Second

// takeOver makes the proxy the one that serves: it waits for the local process
// to listen, declares the proxy ready, and has the originals go. It returns when
// they are gone.
func (s *session) takeOver(ctx context.Context) error {
	if err := s.waitForProcess(ctx); err != nil {
		return err
	}
	if err := s.tunnel.SetReady(ctx, true); err != nil {
		return fmt.Errorf("declaring the proxy ready: %w", err)
	}
	return s.cluster.TakeOver(ctx, s.plan, s.ev.Waiting)
}

// waitForProcess waits for all exposed ports to be listened on, for a while.
func (s *session) waitForProcess(ctx context.Context) error {
	if len(s.inbound.ports) == 0 {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, listenWithin)
	defer cancel()
	if s.inbound.allOpen(within) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if missing := s.inbound.missing(); len(missing) > 0 {
		s.ev.Warn(fmt.Sprintf("nothing listens on %s yet: callers are refused until something does", addresses(missing)))
	}
	return nil
}

// followReadiness keeps the proxy's readiness the local process's, once that
// has listened on all ports for the first time. It returns when ctx ends.
func (s *session) followReadiness(ctx context.Context) error {
	if s.inbound.allOpen(ctx) != nil {
		return nil
	}
	ready := true
	for {
		all, changed := s.inbound.state()
		if all != ready {
			if err := s.tunnel.SetReady(ctx, all); err != nil {
				return fmt.Errorf("telling the proxy whether it is ready: %w", err)
			}
			ready = all
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// addresses names local ports for the user.
func addresses(ports []plan.Port) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = fmt.Sprintf("127.0.0.1:%d", p)
	}
	return strings.Join(texts, ", ")
}
