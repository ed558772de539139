package mount

import (
	"context"
	"sync"
	"time"
)

const (
	// blockSize is in what pieces a file that is read from beginning to end
	// is asked for.
	blockSize = 256 << 10
	// maxBlocks is how many pieces beyond the one wanted are under way: 4 MiB
	// keep a tunnel busy whose round trip takes tens of milliseconds.
	maxBlocks = 16
)

// stream reads an open file. As long as it is read in order, it asks for more
// than is wanted, in growing measure. Safe for concurrent use.
type stream struct {
	h *handle

	mu     sync.Mutex // guards the fields below
	blocks map[int64]*block
	size   int64 // of the file, as last seen
	next   int64 // where the next read begins if the file is read in order
	ahead  int64 // how many blocks to ask for beyond those wanted
}

// block is a piece of a file. The other fields are set when done is closed;
// short data holds all there was to the file's end.
type block struct {
	done chan struct{}
	at   time.Time // when it came
	data []byte
	err  error
}

func newStream(h *handle, size uint64) *stream {
	return &stream{h: h, size: int64(size), blocks: make(map[int64]*block)}
}

// forget drops what was read ahead.
func (s *stream) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.blocks)
}

// read fills dest from off on; fewer bytes mean the file's end.
func (s *stream) read(ctx context.Context, dest []byte, off int64) (int, error) {
	if !s.inOrder(off, int64(len(dest))) {
		data, err := s.h.readAt(ctx, len(dest), off)
		return copy(dest, data), err
	}
	n := 0
	for n < len(dest) {
		at := off + int64(n)
		b := s.block(ctx, at/blockSize)
		select {
		case <-b.done:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		if b.err != nil {
			s.forget()
			return n, b.err
		}
		skip := at % blockSize
		if skip >= int64(len(b.data)) {
			break
		}
		n += copy(dest[n:], b.data[skip:])
	}
	if n == len(dest) {
		return n, nil
	}
	// The block was short: the end, or the file has grown since.
	data, err := s.h.readAt(ctx, len(dest)-n, off+int64(n))
	return n + copy(dest[n:], data), err
}

// inOrder notes a read and tells whether it goes on where others have been:
// the kernel's own reading ahead makes them come slightly out of order.
func (s *stream) inOrder(off, size int64) bool {
	const slack = 4 * blockSize
	s.mu.Lock()
	defer s.mu.Unlock()
	near := off <= s.next+slack && off+slack >= s.next
	switch {
	case !near:
		s.ahead = 0
		s.next = off + size
	case off+size > s.next:
		s.ahead = min(maxBlocks, 2*s.ahead+1)
		s.next = off + size
	}
	return near
}

// block gives the block with the given number and has the following ones
// asked for.
func (s *stream) block(ctx context.Context, number int64) *block {
	s.mu.Lock()
	defer s.mu.Unlock()
	cache := s.h.n.fsys.cache
	for i, b := range s.blocks {
		stale := b.isDone() && cache.fresh(b.at) == 0
		if i < number-maxBlocks || stale {
			delete(s.blocks, i)
		}
		if stale && i >= number {
			s.ahead = 0 // the reader is slow
		}
	}
	if a, exists, known := cache.attr(s.h.n.path()); known && exists {
		s.size = int64(a.stat.Size)
	}
	last := min(number+s.ahead, s.size/blockSize)
	for i := number; i <= max(last, number); i++ {
		if s.blocks[i] == nil {
			s.blocks[i] = s.start(ctx, i)
		}
	}
	return s.blocks[number]
}

func (b *block) isDone() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// start asks for a block. It is more than one reader's: an interrupted read
// doesn't end it.
func (s *stream) start(ctx context.Context, number int64) *block {
	b := &block{done: make(chan struct{})}
	detached := context.WithoutCancel(ctx)
	started := s.h.n.fsys.remote.start(func() {
		defer close(b.done)
		b.data, b.err = s.h.readAt(detached, blockSize, number*blockSize)
		b.at = s.h.n.fsys.cache.now()
	})
	if !started {
		b.err = errClosed
		close(b.done)
	}
	return b
}
