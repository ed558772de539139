package mount

import (
	"bytes"
	"context"
	"sync"
	"syscall"
)

// maxUnanswered is how many bytes of one open file may be on their way to the
// pod. It covers the round trip: a program that writes in small pieces is not
// made to wait for each of them.
const maxUnanswered = 4 << 20

// writes are an open file's writes that haven't been answered. The error of
// one that goes wrong is given to the next write, fsync or close, as with any
// network file system. Safe for concurrent use.
type writes struct {
	mu      sync.Mutex // guards the fields below
	ranges  map[*span]bool
	bytes   int
	err     error
	changed chan struct{} // closed and replaced when a write was answered
}

// span is a range of the file.
type span struct{ from, to int64 }

func (w *writes) init() {
	w.ranges = make(map[*span]bool)
	w.changed = make(chan struct{})
}

// wait waits until no more than the given number of bytes are unanswered.
func (w *writes) wait(ctx context.Context, most int) error {
	return w.waitFor(ctx, func() bool { return w.bytes <= most })
}

// waitFor waits until ok, which is called with mu held.
func (w *writes) waitFor(ctx context.Context, ok func() bool) error {
	for {
		w.mu.Lock()
		done, changed := ok(), w.changed
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// begin waits for room, and for writes to the same bytes, as the pod may do
// what is under way in any order.
func (w *writes) begin(ctx context.Context, s *span) error {
	size := int(s.to - s.from)
	for {
		err := w.waitFor(ctx, func() bool { return w.fitsLocked(s, size) })
		if err != nil {
			return err
		}
		w.mu.Lock()
		if w.fitsLocked(s, size) {
			w.ranges[s] = true
			w.bytes += size
			w.mu.Unlock()
			return nil
		}
		w.mu.Unlock()
	}
}

func (w *writes) fitsLocked(s *span, size int) bool {
	if w.bytes > 0 && w.bytes+size > maxUnanswered {
		return false
	}
	for other := range w.ranges {
		if s.from < other.to && other.from < s.to {
			return false
		}
	}
	return true
}

// end notes the answer to a write.
func (w *writes) end(s *span, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ranges, s)
	w.bytes -= int(s.to - s.from)
	if w.err == nil {
		w.err = err
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// takeErr gives the first error of a write, once.
func (w *writes) takeErr() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.err
	w.err = nil
	return err
}

// Write sends the bytes on their way. Its error may be that of an earlier
// write.
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if h.content != nil {
		return 0, syscall.EBADF
	}
	if err := h.writes.takeErr(); err != nil {
		return 0, errnoOf(err)
	}
	f, p := h.n.fsys, h.n.path()
	s := &span{off, off + int64(len(data))}
	if err := h.writes.begin(ctx, s); err != nil {
		return 0, errnoOf(err)
	}
	data = bytes.Clone(data) // the kernel's buffer is used again
	sent := context.WithoutCancel(ctx)
	started := f.remote.start(func() {
		_, err := call(sent, f.remote, func(on *session) (struct{}, error) {
			file, err := h.use(on)
			if err == nil {
				_, err = file.WriteAt(data, off)
			}
			return struct{}{}, err
		}, nil)
		f.cache.changed(p)
		h.stream.forget()
		h.writes.end(s, err)
	})
	if !started {
		h.writes.end(s, nil)
		return 0, syscall.EIO
	}
	f.cache.changed(p)
	return uint32(len(data)), 0
}
