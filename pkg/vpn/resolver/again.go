package resolver

import (
	"context"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// comingBack asks the cluster what it may have to ask elsewhere: reverse names
// that it doesn't know, and names that aren't its own. A cluster on this machine
// that resolves through it asks here then, which would go round for ever. So a
// question that is under way waits a moment for the first one's answer, as two
// programs may ask the same, and then goes outside, which answers the first too.
type comingBack struct {
	inside, outside Exchange
	patience        time.Duration

	mu       sync.Mutex        // guards underWay
	underWay map[string]*asked // by the query without its ID
}

// asked is a question under way.
type asked struct {
	done   chan struct{}
	answer []byte // set before done is closed, with err
	err    error
}

// exchange has the query answered. It is at least a header long.
func (c *comingBack) exchange(ctx context.Context, query []byte) ([]byte, error) {
	key := string(query[2:])
	c.mu.Lock()
	first, again := c.underWay[key]
	if !again {
		first = &asked{done: make(chan struct{})}
		c.underWay[key] = first
	}
	c.mu.Unlock()
	if again {
		return c.await(ctx, first, query)
	}
	defer func() {
		c.mu.Lock()
		delete(c.underWay, key)
		c.mu.Unlock()
		close(first.done)
	}()
	first.answer, first.err = c.inside(ctx, query)
	return first.answer, first.err
}

// await is the answer to a query that is under way.
func (c *comingBack) await(ctx context.Context, first *asked, query []byte) ([]byte, error) {
	timer := time.NewTimer(c.patience)
	defer timer.Stop()
	select {
	case <-first.done:
		if first.err == nil && len(first.answer) > 2 {
			return append(query[:2:2], first.answer[2:]...), nil
		}
		return c.inside(ctx, query)
	case <-timer.C:
		return c.outside(ctx, query)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Nowhere answers a query by a refusal: for where nobody else can be asked.
func Nowhere(_ context.Context, query []byte) ([]byte, error) {
	q, refusal, err := parse(query)
	if err != nil || refusal != nil {
		return refusal, err
	}
	return failure(q, dns.RcodeRefused)
}
