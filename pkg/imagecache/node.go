package imagecache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Config says what a Node is made of.
type Config struct {
	Name   string // this node's, as the others know it
	Store  *Store
	Origin Origin
	// Peers are the nodes that are alive now, without this one, by name.
	Peers func() map[string]Peer
	Log   *slog.Logger
	Times Times
}

// Times bound the waits. Zero fields take the default.
type Times struct {
	// Start is how long a peer may take to take a question before the next is
	// asked beside it: connecting takes some turns, on links that are full as all
	// pull at once. Default 1.5 s.
	Start time.Duration
	// Work is how long it may then take until the next is asked: an owner may
	// have to fetch from the origin first. Default 4 s.
	Work time.Duration
	// Send is how long a chunk may be on its way from a peer until the next is
	// asked. Default 1.5 s.
	Send time.Duration
	// Chunk is how long anyone may take for one chunk in all. Default 30 s.
	Chunk time.Duration
	// Shun is for how long a peer that broke isn't asked, or one that another
	// overtook is asked last. Default 1 min; one that lied is shunned ten times
	// as long.
	Shun time.Duration
}

func (t Times) withDefaults() Times {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&t.Start, 1500*time.Millisecond)
	set(&t.Work, 4*time.Second)
	set(&t.Send, 1500*time.Millisecond)
	set(&t.Chunk, 30*time.Second)
	set(&t.Shun, time.Minute)
	return t
}

// until is how long a peer may take from a stage to the next.
func (t Times) until(s Stage) time.Duration {
	if s == Sending {
		return t.Send
	}
	return t.Work
}

// Counts are a node's figures since it started.
type Counts struct {
	FromPeers  int64 `json:"bytesFromPeers"`
	FromOrigin int64 `json:"bytesFromOrigin"`
	ToPeers    int64 `json:"bytesToPeers"`
	ToRuntime  int64 `json:"bytesToRuntime"`
	Hits       int64 `json:"hits"`   // blobs that were here when the runtime asked
	Misses     int64 `json:"misses"` // blobs that had to be fetched
	Shunned    int64 `json:"shunned"`
}

// Node is one node's part of the cache. Safe for concurrent use. Close ends its
// fetches and waits for them.
type Node struct {
	cfg Config

	chunks  singleflight.Group // what this node fetches as an owner
	running sync.WaitGroup
	stop    chan struct{}
	stopped sync.Once

	mu      sync.Mutex // guards what follows, and that nothing begins after stop
	fetches map[Digest]*fetch
	loose   map[Chunk]Answer // chunks fetched for others, of blobs not wanted here
	order   []Chunk          // of loose, the oldest first

	grudges grudges

	progress atomic.Int64 // how often the origin has sent something

	fromPeers, fromOrigin, toPeers, toRuntime, hits, misses, shunned atomic.Int64
}

// How many chunks that this node fetched for others it keeps in memory, should
// somebody else ask for them a moment later. All nodes that pull at once do so
// within seconds.
const looseChunks = 64

// New makes a node. It does nothing until it is asked.
func New(cfg Config) *Node {
	cfg.Times = cfg.Times.withDefaults()
	return &Node{
		cfg: cfg, stop: make(chan struct{}), fetches: make(map[Digest]*fetch),
		loose: make(map[Chunk]Answer),
	}
}

// Close ends the fetches that are under way and waits for them. Idempotent.
func (n *Node) Close() error {
	n.stopped.Do(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		close(n.stop)
	})
	n.running.Wait()
	return nil
}

// errClosing says that a node begins nothing any more.
var errClosing = errors.New("the cache is closing")

// beginLocked runs what Close waits for, unless that was called before. ctx ends
// with the node; what it carries is the caller's, but not the caller's end.
func (n *Node) beginLocked(ctx context.Context, work func(ctx context.Context)) error {
	select {
	case <-n.stop:
		return errClosing
	default:
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n.running.Go(func() {
		select {
		case <-n.stop:
		case <-ctx.Done():
		}
		cancel()
	})
	n.running.Go(func() {
		defer cancel()
		work(ctx)
	})
	return nil
}

// Counts are the node's figures.
func (n *Node) Counts() Counts {
	return Counts{
		FromPeers: n.fromPeers.Load(), FromOrigin: n.fromOrigin.Load(), ToPeers: n.toPeers.Load(),
		ToRuntime: n.toRuntime.Load(), Hits: n.hits.Load(), Misses: n.misses.Load(), Shunned: n.shunned.Load(),
	}
}

// Serve is the peer's side: a chunk for another node. With held, only if it is
// here. started is called when work on it begins.
func (n *Node) Serve(ctx context.Context, repo string, c Chunk, held bool, started func()) (Answer, error) {
	a, ok := n.local(c)
	if !ok && held {
		return Answer{}, ErrNotHeld
	}
	started()
	if !ok {
		var err error
		if a, err = n.own(ctx, repo, c); err != nil {
			return Answer{}, err
		}
	}
	n.toPeers.Add(int64(len(a.Data)))
	return a, nil
}

// local is a chunk that is here already: in the store, on its way into it, or
// fetched for somebody else.
func (n *Node) local(c Chunk) (Answer, bool) {
	n.mu.Lock()
	f := n.fetches[c.Blob]
	a, ok := n.loose[c]
	n.mu.Unlock()
	if ok {
		return a, true
	}
	if f != nil {
		if data, ok := f.chunk(c.Index); ok {
			return Answer{Data: data, Size: f.blob.size}, true
		}
	}
	file, size, err := n.cfg.Store.Open(c.Blob)
	if err != nil {
		return Answer{}, false
	}
	defer file.Close()
	if c.Index < 0 || c.Index > 0 && c.Index >= chunks(size) {
		return Answer{}, false
	}
	data := make([]byte, max(chunkLength(size, c.Index), 0))
	if _, err := file.ReadAt(data, int64(c.Index)*ChunkSize); err != nil {
		return Answer{}, false
	}
	return Answer{Data: data, Size: size}, true
}

// own fetches a chunk as its owner, once for all who ask: from the blob's home,
// if it was pushed there, from the origin, or, where that fails, from any peer that
// has it.
func (n *Node) own(ctx context.Context, repo string, c Chunk) (Answer, error) {
	type result struct {
		answer Answer
		err    error
	}
	done := make(chan result, 1)
	n.mu.Lock()
	err := n.beginLocked(ctx, func(ctx context.Context) {
		a, err, _ := n.chunks.Do(fmt.Sprintf("%s/%s/%d", repo, c.Blob, c.Index), func() (any, error) {
			return n.ownOnce(ctx, repo, c)
		})
		answer, _ := a.(Answer)
		done <- result{answer, err}
	})
	n.mu.Unlock()
	if err != nil {
		return Answer{}, err
	}
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}

// heard notes that the origin sends.
func (n *Node) heard() { n.progress.Add(1) }

// ownOnce is own, for one of those who ask. ctx is not the asker's: others wait
// for the same.
func (n *Node) ownOnce(ctx context.Context, repo string, c Chunk) (Answer, error) {
	if a, ok := n.local(c); ok {
		return a, nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Times.Chunk)
	defer cancel()
	if a, ok := n.fromHome(ctx, repo, c); ok {
		n.keepLoose(c, a)
		return a, nil
	}
	a, err := n.cfg.Origin.Chunk(ctx, repo, c, n.heard)
	if err != nil {
		held, heldErr := n.fromHolders(ctx, repo, c)
		if heldErr != nil {
			return Answer{}, errors.Join(err, heldErr)
		}
		a = held
	} else {
		n.fromOrigin.Add(int64(len(a.Data)))
	}
	n.keepLoose(c, a)
	return a, nil
}

// fromHome asks the blob's homes for a chunk that they may have. One that takes
// longer than an owner may isn't asked for a while.
func (n *Node) fromHome(ctx context.Context, repo string, c Chunk) (Answer, bool) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Times.Work)
	defer cancel()
	peers := n.cfg.Peers()
	for _, name := range Homes(c.Blob, append(names(peers), n.cfg.Name)) {
		peer, ok := peers[name]
		if !ok || n.isShunned(name) || n.isSlow(name) {
			continue
		}
		a, err := peer.Chunk(ctx, repo, c, true, func(Stage) {})
		if ctx.Err() != nil {
			n.slow(name)
		}
		if err == nil && fitting(a, c.Index, a.Size) == nil {
			n.fromPeers.Add(int64(len(a.Data)))
			return a, true
		}
	}
	return Answer{}, false
}

// fromHolders asks all peers, in the chunk's order, for what they have; those that
// are shunned too, behind the others: they may be the only ones.
func (n *Node) fromHolders(ctx context.Context, repo string, c Chunk) (Answer, error) {
	peers := n.cfg.Peers()
	err := ErrNotHeld
	var order, last []string
	for _, name := range Owners(c, names(peers)) {
		if n.isShunned(name) {
			last = append(last, name)
		} else {
			order = append(order, name)
		}
	}
	for _, name := range append(order, last...) {
		var a Answer
		if a, err = peers[name].Chunk(ctx, repo, c, true, func(Stage) {}); err == nil {
			n.fromPeers.Add(int64(len(a.Data)))
			return a, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Answer{}, err
}

func (n *Node) keepLoose(c Chunk, a Answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.loose[c]; !ok {
		n.order = append(n.order, c)
	}
	n.loose[c] = a
	for len(n.order) > looseChunks {
		delete(n.loose, n.order[0])
		n.order = n.order[1:]
	}
}

// shun leaves a peer alone for a while.
func (n *Node) shun(name string, lied bool, why error) {
	if name == "" || name == n.cfg.Name {
		return
	}
	d := n.cfg.Times.Shun
	if lied {
		d *= 10
	}
	n.grudges.hold(shunned, name, d)
	n.shunned.Add(1)
	n.cfg.Log.Warn("shunning a peer", "peer", name, "for", d, "err", why)
}

// slow asks a peer last for a while.
func (n *Node) slow(name string) {
	n.grudges.hold(slow, name, n.cfg.Times.Shun)
	n.cfg.Log.Info("asking a peer last: another overtook it", "peer", name, "for", n.cfg.Times.Shun)
}

func (n *Node) isSlow(name string) bool    { return n.grudges.held(slow, name) }
func (n *Node) isShunned(name string) bool { return n.grudges.held(shunned, name) }

func names(peers map[string]Peer) []string {
	list := make([]string, 0, len(peers))
	for name := range peers {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
