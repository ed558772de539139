package imagecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
)

// How many chunks of a blob are on their way at once.
const underWay = 8

// How far behind the first missing chunk another may be under way. More would
// share the origin's link among so many that each takes longer than the others
// are patient.
const ahead = underWay + underWay/2

// Blobs up to this size, which a proxy image's are, go to the runtime when all
// of it is proved: a runtime that has been given a wrong byte keeps it when it
// tries again. Of larger ones only the last chunk waits, as runtimes give up a
// pull that makes no progress for a minute.
const proveFirst = 64 << 20

// fetch is one blob on its way to this node, for all who read it. Safe for
// concurrent use.
type fetch struct {
	digest Digest
	repo   string
	sized  chan struct{} // closed when blob is set, or the fetch has failed before that
	blob   *partialBlob  // set before sized is closed

	mu       sync.Mutex // guards what follows
	changed  chan struct{}
	verified bool
	over     bool
	err      error
	readers  int
}

// Blob is a blob of a node's, whole or on its way. Close it.
type Blob struct {
	Size int64
	node *Node
	file io.ReaderAt // of a whole one
	shut func() error
	on   *fetch // of one on its way
}

// Close ends the reading. A fetch goes on.
func (b *Blob) Close() error { return b.shut() }

// Open finds a blob for the node's runtime: in the store, or else it begins to
// fetch it. It returns when the size is known.
func (n *Node) Open(ctx context.Context, repo string, d Digest) (*Blob, error) {
	f, blob, err := n.find(ctx, repo, d)
	if err != nil || blob != nil {
		return blob, err
	}
	select {
	case <-f.sized:
	case <-ctx.Done():
		_ = f.leave()
		return nil, context.Cause(ctx)
	}
	if f.blob == nil {
		return nil, errors.Join(f.failed(), f.leave())
	}
	return &Blob{Size: f.blob.size, node: n, on: f, shut: f.leave}, nil
}

// find is the blob in the store, or the fetch that brings it.
func (n *Node) find(ctx context.Context, repo string, d Digest) (*fetch, *Blob, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	file, size, err := n.cfg.Store.Open(d)
	if err == nil {
		n.hits.Add(1)
		return nil, &Blob{Size: size, node: n, file: file, shut: file.Close}, nil
	}
	f := n.fetches[d]
	if f == nil {
		f = &fetch{digest: d, repo: repo, sized: make(chan struct{}), changed: make(chan struct{})}
		f.readers++ // the fetch itself
		if err := n.beginLocked(ctx, func(ctx context.Context) { n.run(ctx, f) }); err != nil {
			return nil, nil, err
		}
		n.misses.Add(1)
		n.fetches[d] = f
	}
	f.mu.Lock()
	f.readers++
	f.mu.Unlock()
	return f, nil, nil
}

// run fetches a blob, verifies it and stores it. It outlives who asked for it
// first; Close ends it.
func (n *Node) run(ctx context.Context, f *fetch) {
	err := n.bring(ctx, f)
	n.mu.Lock()
	delete(n.fetches, f.digest)
	n.mu.Unlock()
	f.end(err)
	if err != nil {
		n.cfg.Log.Error("a blob could not be had", "blob", f.digest, "err", err)
	}
	_ = f.leave()
}

func (n *Node) bring(ctx context.Context, f *fetch) error {
	first := Chunk{Blob: f.digest}
	a, from, err := n.hedged(ctx, first, n.sources(f.repo, first), func(a Answer) error { return fitting(a, 0, a.Size) })
	if err != nil {
		return err
	}
	if f.blob, err = n.cfg.Store.begin(f.digest, a.Size); err != nil {
		return err
	}
	close(f.sized)
	if err := n.arrived(f, 0, a.Data, from); err != nil {
		return err
	}
	if err := n.bringRest(ctx, f); err != nil {
		return err
	}
	if err := n.proved(context.WithoutCancel(ctx), f); err != nil {
		return err
	}
	return n.cfg.Store.keep(f.digest, f.blob.file.Name(), f.blob.size)
}

// bringRest fetches all chunks but the first in two lanes. In one go the chunks
// that others own, in their order. In the other go those that this node owns, and
// that all others wait for: as far ahead as keeps the origin's link busy while
// the chunks before are on their way between the nodes.
func (n *Node) bringRest(ctx context.Context, f *fetch) error {
	var own, others []int
	nodes := append(names(n.cfg.Peers()), n.cfg.Name)
	for i := 1; i < chunks(f.blob.size); i++ {
		if askingOrder(Chunk{Blob: f.digest, Index: i}, nodes)[0] == n.cfg.Name {
			own = append(own, i)
		} else {
			others = append(others, i)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, lane := range [][]int{own, others} {
		group.Go(func() error { return n.bringLane(ctx, f, lane) })
	}
	return group.Wait()
}

// bringLane fetches chunks in the order of the list, underWay of them at once,
// and none that lies more than ahead chunks behind the first that is missing.
func (n *Node) bringLane(ctx context.Context, f *fetch, lane []int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(underWay)
	for _, i := range lane {
		if err := f.reaches(ctx, i-ahead); err != nil {
			return errors.Join(group.Wait(), err)
		}
		group.Go(func() error {
			c := Chunk{Blob: f.digest, Index: i}
			a, from, err := n.hedged(ctx, c, n.sources(f.repo, c), func(a Answer) error { return fitting(a, i, f.blob.size) })
			if err != nil {
				return err
			}
			return n.arrived(f, i, a.Data, from)
		})
	}
	return group.Wait()
}

// fitting tells why an answer can't be the chunk of a blob of so many bytes.
func fitting(a Answer, index int, size int64) error {
	if a.Size != size || size < 0 || int64(len(a.Data)) != max(chunkLength(size, index), 0) {
		return fmt.Errorf("%w: %d bytes of %d for chunk %d", errDigest, len(a.Data), a.Size, index)
	}
	return nil
}

// arrived keeps a chunk and wakes who waits for it.
func (n *Node) arrived(f *fetch, index int, data []byte, from string) error {
	if len(data) == 0 { // an empty blob
		return nil
	}
	if err := f.blob.write(index, data, from); err != nil {
		return err
	}
	if from != "" {
		n.fromPeers.Add(int64(len(data)))
	}
	f.wake()
	return nil
}

// proved verifies the whole. Where it isn't what the digest says, each chunk
// that a peer sent is compared with the origin's: so the liar is found, and the
// blob mended.
func (n *Node) proved(ctx context.Context, f *fetch) error {
	err := verify(f.blob.file, f.digest)
	if err == nil {
		return nil
	}
	for i, from := range f.blob.sources() {
		if from == "" {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, n.cfg.Times.Chunk)
		right, originErr := n.cfg.Origin.Chunk(ctx, f.repo, Chunk{Blob: f.digest, Index: i}, n.heard)
		cancel()
		if originErr != nil {
			return errors.Join(err, originErr)
		}
		n.fromOrigin.Add(int64(len(right.Data)))
		was, _ := f.blob.read(i)
		if bytes.Equal(was, right.Data) {
			continue
		}
		n.shun(from, true, fmt.Errorf("chunk %d of %s: %w", i, f.digest, errDigest))
		if err := f.blob.write(i, right.Data, ""); err != nil {
			return err
		}
	}
	return verify(f.blob.file, f.digest)
}

// chunk is one that is there already.
func (f *fetch) chunk(index int) ([]byte, bool) {
	select {
	case <-f.sized:
	default:
		return nil, false
	}
	if f.blob == nil {
		return nil, false
	}
	return f.blob.read(index)
}

// reaches waits until all chunks before index are there.
func (f *fetch) reaches(ctx context.Context, index int) error {
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		if f.blob.missing() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (f *fetch) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
}

// end tells the readers how the fetch ended.
func (f *fetch) end(err error) {
	f.mu.Lock()
	f.over, f.err, f.verified = true, err, err == nil
	f.mu.Unlock()
	select {
	case <-f.sized:
	default:
		close(f.sized)
	}
	f.wake()
}

func (f *fetch) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// leave is for one reader less. The last closes the file, which is in the store
// by then, or of no use.
func (f *fetch) leave() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers--
	if f.readers > 0 || f.blob == nil {
		return nil
	}
	if f.verified {
		return f.blob.file.Close()
	}
	return f.blob.drop()
}

// wait returns a chunk when it is there, and may be given away.
func (f *fetch) wait(ctx context.Context, index int) ([]byte, error) {
	early := f.blob.size > proveFirst && index < len(f.blob.have)-1
	for {
		f.mu.Lock()
		verified, over, err, changed := f.verified, f.over, f.err, f.changed
		f.mu.Unlock()
		if over && err != nil {
			return nil, err
		}
		if early || verified {
			if data, ok := f.blob.read(index); ok {
				return data, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Copy writes the bytes from first up to, and without, end, when they are there
// and proved to be what the digest says; see proveFirst.
func (b *Blob) Copy(ctx context.Context, w io.Writer, first, end int64) error {
	if b.file != nil {
		written, err := io.Copy(w, io.NewSectionReader(b.file, first, end-first))
		b.node.toRuntime.Add(written)
		return err
	}
	for at := first; at < end; {
		index := int(at / ChunkSize)
		data, err := b.on.wait(ctx, index)
		if err != nil {
			return err
		}
		begin := int64(index) * ChunkSize
		part := data[at-begin : min(end-begin, int64(len(data)))]
		if _, err := w.Write(part); err != nil {
			return err
		}
		b.node.toRuntime.Add(int64(len(part)))
		at += int64(len(part))
	}
	return nil
}
