package imagecache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// source is one of those who may have a chunk.
type source struct {
	name string // of a peer; "": the origin, or this node as an owner
	ask  func(ctx context.Context, tell func(Stage)) (Answer, error)
}

// How many peers are asked whether they hold a chunk, beside its owner and the
// next, before the origin is: a thousand nodes take long to say no.
const holders = 3

// sources are those to ask for a chunk, in their order: the owner, the next
// owner, some who may hold it, those of them who are slow; then the origin, and
// last, who is shunned. The origin is behind the slow, since who finds all
// others slow is itself.
func (n *Node) sources(repo string, c Chunk) []source {
	peers := n.cfg.Peers()
	var list, last, shunned []source
	origin := source{ask: func(ctx context.Context, tell func(Stage)) (Answer, error) {
		tell(Taken)
		return n.own(ctx, repo, c)
	}}
	mine := false
	order := askingOrder(c, append(names(peers), n.cfg.Name))
	for i, name := range order[:min(len(order), 2+holders)] {
		if name == n.cfg.Name {
			if i == 0 {
				list, mine = append(list, origin), true
			}
			continue
		}
		held := mine || i > 1
		s := source{name: name, ask: func(ctx context.Context, tell func(Stage)) (Answer, error) {
			return peers[name].Chunk(ctx, repo, c, held, tell)
		}}
		switch {
		case n.isShunned(name):
			shunned = append(shunned, s)
		case n.isSlow(name):
			last = append(last, s)
		default:
			list = append(list, s)
		}
	}
	if !mine {
		last = append(last, origin)
	}
	return slices.Concat(list, last, shunned)
}

// outcome is what a source answered.
type outcome struct {
	index  int
	source source
	answer Answer
	err    error
}

// step is a stage that a source has reached.
type step struct {
	index int
	stage Stage
}

// hedged asks sources one after the other: the next when one has failed, or is
// slower than it may be, and then beside it. Each time that happens the patience
// doubles: where all is slow, asking more often makes it slower. The first chunk
// that comes wins, and the others are told to stop.
func (n *Node) hedged(ctx context.Context, c Chunk, sources []source, fits func(Answer) error) (Answer, string, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Times.Chunk)
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()

	outcomes := make(chan outcome, len(sources))
	steps := make(chan step, 2*len(sources))
	open := make(map[int]bool) // who was asked and hasn't answered
	patience := time.NewTimer(0)
	defer patience.Stop()
	var errs []error
	hedges := 0
	for next := 0; ; {
		select {
		case s := <-steps:
			if s.index == next-1 { // the last that was asked
				patience.Reset(n.cfg.Times.until(s.stage) << hedges)
			}
		case <-patience.C:
			if next == len(sources) {
				continue // nobody left: the context's time decides
			}
			s, i := sources[next], next
			next, open[i] = next+1, true
			hedges = len(open) - 1
			patience.Reset(n.cfg.Times.Start << hedges)
			asked.Go(func() {
				a, err := s.ask(ctx, func(stage Stage) {
					select {
					case steps <- step{i, stage}:
					case <-ctx.Done():
					}
				})
				if err == nil {
					err = fits(a)
				}
				outcomes <- outcome{i, s, a, err}
			})
		case o := <-outcomes:
			delete(open, o.index)
			if o.err == nil {
				n.overtaken(sources[:o.index], open)
				return o.answer, o.source.name, nil
			}
			errs = append(errs, n.blame(ctx, o))
			if len(open) == 0 && next == len(sources) {
				return Answer{}, "", fmt.Errorf("chunk %d of %s: %w", c.Index, c.Blob, errors.Join(errs...))
			}
			patience.Reset(0)
		case <-ctx.Done():
			return Answer{}, "", fmt.Errorf("chunk %d of %s: %w", c.Index, c.Blob, errors.Join(append(errs, context.Cause(ctx))...))
		}
	}
}

// overtaken asks those peers last from now on that were asked before the one who
// answered, and haven't: their link is slow, or they hang.
func (n *Node) overtaken(before []source, open map[int]bool) {
	for i, s := range before {
		if open[i] && s.name != "" {
			n.slow(s.name)
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
