package session

import (
	"context"
	"fmt"
	"sync"
)

// exit is how the local process ended.
type exit struct {
	code int
	err  error
}

// live takes the swap over and waits for whatever ends the session: the local
// process, the user, the proxy pod, the tunnel, or a part of the session that
// broke. All that serves goes on when it returns, until it is undone.
func (s *session) live(ctx context.Context) error {
	defer s.inbound.quiet.Store(true) // who is refused from now on is no news
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()

	took, gone := make(chan error, 1), make(chan error, 1)
	beside.Go(func() { took <- s.takeOver(ctx) })
	beside.Go(func() { gone <- s.cluster.ProxyGone(ctx, s.plan) })
	for {
		select {
		case err := <-took:
			if err != nil && ctx.Err() == nil {
				return err
			}
			if err == nil {
				s.taken()
				beside.Go(func() { s.tasks.report("the proxy's readiness", s.followReadiness(ctx)) })
			}
			took = nil
		case e := <-s.exited:
			s.code = e.code
			s.o.Log.Info("ending", "cause", "the local process has ended", "code", e.code)
			return e.err
		case err := <-gone:
			if ctx.Err() == nil {
				return err
			}
		case err := <-s.tasks.broken:
			return err
		case <-ctx.Done():
			s.o.Log.Info("ending", "cause", "asked to")
			return nil
		}
	}
}

// taken says that the swap is in effect.
func (s *session) taken() {
	switch {
	case s.plan.Workload != nil:
		s.ev.Tell(fmt.Sprintf("%s is swapped: its traffic comes here", s.request.Target))
	default:
		s.ev.Tell(fmt.Sprintf("proxy %s is in place", s.podName()))
	}
}
