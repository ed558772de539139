package imagecache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// source is one of those who may have a chunk.
type source struct {
	name string // of a peer; "": the origin, or this node as an owner
	ask  func(ctx context.Context, started func()) (Answer, error)
}

// sources are those to ask for a chunk, in their order: the owner, the next
// owner, whoever else may hold it, the origin.
func (n *Node) sources(repo string, c Chunk) []source {
	peers := n.cfg.Peers()
	var list, shunned []source
	origin := source{ask: func(ctx context.Context, started func()) (Answer, error) {
		started()
		return n.own(ctx, repo, c)
	}}
	mine := false
	for i, name := range Owners(c, append(names(peers), n.cfg.Name)) {
		if name == n.cfg.Name {
			if i == 0 {
				list, mine = append(list, origin), true
			}
			continue
		}
		held := mine || i > 1
		s := source{name: name, ask: func(ctx context.Context, started func()) (Answer, error) {
			return peers[name].Chunk(ctx, repo, c, held, started)
		}}
		if n.isShunned(name) {
			shunned = append(shunned, s)
		} else {
			list = append(list, s)
		}
	}
	if !mine {
		list = append(list, origin)
	}
	return append(list, shunned...)
}

// outcome is what a source answered.
type outcome struct {
	source source
	answer Answer
	err    error
}

// hedged asks sources one after the other: the next when one has failed, or is
// slower than it may be, and then beside it. The first chunk that comes wins,
// and the others are told to stop.
func (n *Node) hedged(ctx context.Context, c Chunk, sources []source, fits func(Answer) error) (Answer, string, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Times.Chunk)
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()

	outcomes := make(chan outcome, len(sources))
	started := make(chan int, len(sources))
	patience := time.NewTimer(0)
	defer patience.Stop()
	var errs []error
	for next, open := 0, 0; ; {
		select {
		case i := <-started:
			if i == next-1 { // the last that was asked works on it
				patience.Reset(n.cfg.Times.Work)
			}
		case <-patience.C:
			if next == len(sources) {
				continue // nobody left: the context's time decides
			}
			s, i := sources[next], next
			next, open = next+1, open+1
			patience.Reset(n.cfg.Times.Start)
			asked.Go(func() {
				a, err := s.ask(ctx, sync.OnceFunc(func() { started <- i }))
				if err == nil {
					err = fits(a)
				}
				outcomes <- outcome{s, a, err}
			})
		case o := <-outcomes:
			open--
			if o.err == nil {
				return o.answer, o.source.name, nil
			}
			errs = append(errs, n.blame(ctx, o))
			if open == 0 && next == len(sources) {
				return Answer{}, "", fmt.Errorf("chunk %d of %s: %w", c.Index, c.Blob, errors.Join(errs...))
			}
			patience.Reset(0)
		case <-ctx.Done():
			return Answer{}, "", fmt.Errorf("chunk %d of %s: %w", c.Index, c.Blob, errors.Join(append(errs, context.Cause(ctx))...))
		}
	}
}

// blame shuns a peer whose fault a failure is, and returns the failure with its
// name.
func (n *Node) blame(ctx context.Context, o outcome) error {
	if o.source.name == "" {
		return o.err
	}
	if !errors.Is(o.err, ErrNotHeld) && !errors.Is(o.err, ErrUnknown) && ctx.Err() == nil {
		n.shun(o.source.name, false, o.err)
	}
	return fmt.Errorf("peer %s: %w", o.source.name, o.err)
}
