package mount

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"
)

const (
	// openFlags are the flags of open(2) that the pod is told of.
	openFlags = syscall.O_ACCMODE | os.O_EXCL | os.O_TRUNC
	// smallFile is up to which size a file is read as a whole when it is
	// opened.
	smallFile = 128 << 10
)

// handle is an open file. Safe for concurrent use.
type handle struct {
	n       *node
	flags   uint32
	content *content // a small file's, read as a whole: no file is open in the pod then
	stream  *stream  // reads ahead; nil with content
	writes  writes

	mu   sync.Mutex // guards the fields below
	on   *session   // which file belongs to
	file *sftp.File
}

func newHandle(n *node, size uint64, flags uint32, s *session, file *sftp.File) *handle {
	h := &handle{n: n, flags: flags, on: s, file: file}
	h.stream = newStream(h, size)
	h.writes.init()
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.writers == nil {
			n.writers = make(map[*handle]bool)
		}
		n.writers[h] = true
	}
	return h
}

// drain waits until what was written to the node has been answered, whatever
// the answers; or for ctx.
func (n *node) drain(ctx context.Context) {
	n.mu.Lock()
	writers := make([]*handle, 0, len(n.writers))
	for h := range n.writers {
		writers = append(writers, h)
	}
	n.mu.Unlock()
	for _, h := range writers {
		_ = h.writes.wait(ctx, 0) // the handle's own flush tells its user
	}
}

// Open opens a file. A small one that is only read is fetched as a whole.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, p := n.fsys, n.path()
	n.drain(ctx)
	a, err := f.stat(ctx, p)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	reading := flags&(syscall.O_ACCMODE|syscall.O_TRUNC) == syscall.O_RDONLY
	if reading && a.stat.Size > 0 && a.stat.Size <= smallFile {
		c, err := f.read(ctx, p, a)
		if err != nil {
			return nil, 0, errnoOf(err)
		}
		if uint64(len(c.data)) != a.stat.Size {
			return &handle{n: n, flags: flags, content: c}, fuse.FOPEN_DIRECT_IO, 0
		}
		return &handle{n: n, flags: flags, content: c}, n.keep(a), 0
	}
	type opened struct {
		file *sftp.File
		on   *session
	}
	o, err := call(ctx, f.remote, func(s *session) (opened, error) {
		file, err := s.client.OpenFile(p, int(flags)&openFlags)
		return opened{file, s}, err
	}, func(_ *session, o opened) { _ = o.file.Close() })
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	if flags&syscall.O_TRUNC != 0 {
		f.cache.changed(p)
	}
	h := newHandle(n, a.stat.Size, flags, o.on, o.file)
	if reading && a.stat.Size == 0 {
		// The files of /proc and /sys say that they are empty, and aren't.
		return h, fuse.FOPEN_DIRECT_IO, 0
	}
	return h, n.keep(a), 0
}

// read gives a small file's content, from the cache or from the pod, and lets
// the next ones be fetched.
func (f *fileSystem) read(ctx context.Context, p string, a attr) (*content, error) {
	c := f.cache.content(p, a)
	f.ahead.opened(ctx, p, c != nil)
	if c != nil {
		return c, nil
	}
	return f.fetch(ctx, p, a)
}

// fetch reads a small file from the pod, with its attributes, expected to be
// about as given: two round trips. The third, closing, nobody waits for.
func (f *fileSystem) fetch(ctx context.Context, p string, a attr) (*content, error) {
	at, epoch := f.cache.begin()
	c, err := call(ctx, f.remote, func(s *session) (*content, error) {
		file, err := s.client.Open(p)
		if err != nil {
			return nil, err
		}
		defer f.remote.start(func() { _ = file.Close() })
		return readWhole(file, int(a.stat.Size), at)
	}, nil)
	if err != nil {
		return nil, err
	}
	f.cache.putAttr(p, attr{stat: c.stat, at: at}, epoch)
	if uint64(len(c.data)) == c.stat.Size {
		f.cache.putContent(p, c, epoch)
	}
	return c, nil
}

// readWhole reads an open file, of about the size given, and its attributes at
// the same time.
func readWhole(file *sftp.File, size int, at time.Time) (*content, error) {
	c := &content{at: at, since: at}
	var both errgroup.Group
	both.Go(func() error {
		info, err := file.Stat()
		if err == nil {
			c.stat = *info.Sys().(*sftp.FileStat)
		}
		return err
	})
	both.Go(func() error {
		data := make([]byte, size+1)
		n, err := file.ReadAt(data, 0)
		c.data = data[:n]
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	return c, both.Wait()
}

// keep tells the kernel to keep the pages it has of a file if they are sure
// to be those of the file as it is now.
func (n *node) keep(now attr) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !same(n.pages.stat, now.stat) {
		n.pages = version{stat: now.stat, since: now.at, from: now.at}
		return 0
	}
	if n.pages.from.Sub(n.pages.since) >= settling {
		return fuse.FOPEN_KEEP_CACHE
	}
	n.pages.from = now.at
	return 0
}

// use gives the file in the pod, opening it again if the session it was open
// in broke.
func (h *handle) use(s *session) (*sftp.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file != nil && h.on == s {
		return h.file, nil
	}
	file, err := s.client.OpenFile(h.n.path(), int(h.flags)&syscall.O_ACCMODE)
	if err != nil {
		return nil, err
	}
	h.on, h.file = s, file
	return file, nil
}

// Read reads from the file; beyond its end, nothing.
func (h *handle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if h.content != nil {
		data := h.content.data
		if off >= int64(len(data)) {
			return fuse.ReadResultData(nil), 0
		}
		return fuse.ReadResultData(data[off:min(int64(len(data)), off+int64(len(dest)))]), 0
	}
	h.n.drain(ctx)
	n, err := h.stream.read(ctx, dest, off)
	if err != nil {
		return nil, errnoOf(err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// readAt makes one request for a range, parts of it at the same time.
func (h *handle) readAt(ctx context.Context, size int, off int64) ([]byte, error) {
	return call(ctx, h.n.fsys.remote, func(s *session) ([]byte, error) {
		file, err := h.use(s)
		if err != nil {
			return nil, err
		}
		buf := make([]byte, size)
		n, err := file.ReadAt(buf, off)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return buf[:n], err
	}, nil)
}

// stat gives the open file's attributes, whatever its name is now.
func (h *handle) stat(ctx context.Context) (sftp.FileStat, error) {
	if h.content != nil {
		return h.content.stat, nil
	}
	return call(ctx, h.n.fsys.remote, func(s *session) (sftp.FileStat, error) {
		file, err := h.use(s)
		if err != nil {
			return sftp.FileStat{}, err
		}
		info, err := file.Stat()
		if err != nil {
			return sftp.FileStat{}, err
		}
		return *info.Sys().(*sftp.FileStat), nil
	}, nil)
}

// Fsync waits for what was written, and for the pod's disk where the server
// can tell.
func (h *handle) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	if errno := h.Flush(ctx); errno != 0 || h.content != nil {
		return errno
	}
	_, err := call(ctx, h.n.fsys.remote, func(s *session) (struct{}, error) {
		file, err := h.use(s)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, file.Sync()
	}, nil)
	if errno := errnoOf(err); errno != syscall.ENOTSUP {
		return errno
	}
	return 0
}

// Flush is close(2): it waits for what was written and gives the error of a
// write that went wrong.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	if h.content != nil {
		return 0
	}
	if err := h.writes.wait(ctx, 0); err != nil {
		return errnoOf(err)
	}
	return errnoOf(h.writes.takeErr())
}

// Release is the end of the last use of the handle.
func (h *handle) Release(context.Context) syscall.Errno {
	if h.content != nil {
		return 0
	}
	h.n.mu.Lock()
	delete(h.n.writers, h)
	h.n.mu.Unlock()
	h.n.fsys.remote.start(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.file != nil {
			_ = h.file.Close()
		}
	})
	return 0
}
