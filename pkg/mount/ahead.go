package mount

import (
	"context"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/sftp"
)

const (
	// maxAhead is how many files or listings may be on their way that nobody
	// has asked for yet.
	maxAhead = 128
	// maxWindow is how many files of a directory are fetched beyond the one
	// that is read.
	maxWindow = 256
	// dirWindow is how many sub-directories are listed beyond the one that
	// is.
	dirWindow = 32
	// memory is how long it counts that a directory was listed or read.
	memory = 5 * time.Second
)

// ahead guesses from what is read what will be read next, and fetches it: the
// following small files of a directory that is read file by file, and the
// next directories of a tree that is walked. What it fetches lies in the cache,
// where it is valid no longer than anything else. Safe for concurrent use.
type ahead struct {
	f     *fileSystem
	slots chan struct{} // one for each fetch under way

	mu      sync.Mutex // guards the fields below; before cache.mu
	dirs    map[string]*progress
	flying  map[string]chan struct{} // closed when the file or listing is there
	inOrder int                      // how many files were read in order of late
	lastRun time.Time                // when the last of them was
}

// progress is how far a program has come in a directory.
type progress struct {
	entries []entry // as last listed: the names count, the rest is a guess
	at      time.Time
	pos     int // which entry was read last; -1 for none
	window  int // how many to fetch beyond pos
	filled  int // up to which entry that was done
}

func newAhead(f *fileSystem) *ahead {
	return &ahead{
		f:      f,
		slots:  make(chan struct{}, maxAhead),
		dirs:   make(map[string]*progress),
		flying: make(map[string]chan struct{}),
	}
}

// wait waits for a fetch of p that is under way.
func (a *ahead) wait(ctx context.Context, p string) {
	a.mu.Lock()
	done := a.flying[p]
	a.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// opened notes that a small file is about to be read; hit says that it had
// been fetched.
func (a *ahead) opened(ctx context.Context, p string, hit bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	dir := path.Dir(p)
	d := a.dirs[dir]
	if d == nil {
		return
	}
	i, ok := d.index(path.Base(p))
	if !ok {
		return
	}
	now := a.f.cache.now()
	d.at = now
	follows := d.pos >= 0 && i > d.pos && d.nextFile(d.pos+1) == i
	d.pos = i
	switch {
	case !follows:
		d.window = 0
		d.filled = i + 1
		return
	case hit:
		d.window = min(maxWindow, max(8, 2*d.window))
	default: // fetched too late or not at all
		d.window = max(8, d.window/2)
		d.filled = i + 1
	}
	a.inOrder++
	a.lastRun = now
	if d.filled-i <= d.window/2 {
		a.fillLocked(ctx, dir, d, i+1+d.window)
	}
}

// listed notes that a directory was listed.
func (a *ahead) listed(ctx context.Context, dir string, l *listing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.f.cache.now()
	for p, d := range a.dirs {
		if now.Sub(d.at) > memory {
			delete(a.dirs, p)
		}
	}
	d := &progress{entries: l.entries, at: now, pos: -1}
	a.dirs[dir] = d
	if a.readingLocked(now) {
		d.window = dirWindow
		a.fillLocked(ctx, dir, d, dirWindow)
	}
	parent := a.dirs[path.Dir(dir)]
	if parent == nil || dir == a.f.base {
		return
	}
	parent.at = now
	// A tree is walked: this directory's children come next, then its
	// siblings.
	a.listAheadLocked(ctx, dir, d.entries, 0)
	if i, ok := parent.index(path.Base(dir)); ok {
		a.listAheadLocked(ctx, path.Dir(dir), parent.entries, i+1)
	}
}

// readingLocked tells whether files have been read in the order of their
// directories just now.
func (a *ahead) readingLocked(now time.Time) bool {
	if now.Sub(a.lastRun) > memory {
		a.inOrder = 0
	}
	return a.inOrder >= 4
}

func (d *progress) index(name string) (int, bool) {
	return slices.BinarySearchFunc(d.entries, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
}

// nextFile gives the first small file from i on.
func (d *progress) nextFile(i int) int {
	for i < len(d.entries) && !isSmallFile(d.entries[i].stat) {
		i++
	}
	return i
}

func isSmallFile(st sftp.FileStat) bool {
	return st.Mode&syscall.S_IFMT == syscall.S_IFREG && st.Size > 0 && st.Size <= smallFile
}

// fillLocked fetches the small files of dir up to the given entry.
func (a *ahead) fillLocked(ctx context.Context, dir string, d *progress, to int) {
	for d.filled = d.nextFile(d.filled); d.filled < min(to, len(d.entries)); d.filled = d.nextFile(d.filled + 1) {
		e := d.entries[d.filled]
		p := path.Join(dir, e.name)
		if at, exists, known := a.f.cache.attr(p); known && exists && a.f.cache.content(p, at) != nil {
			continue
		}
		if !a.flyLocked(ctx, p, func(ctx context.Context) { _, _ = a.f.fetch(ctx, p, attr{stat: e.stat}) }) {
			return
		}
	}
}

// listAheadLocked lists the next directories among the entries from i on.
func (a *ahead) listAheadLocked(ctx context.Context, dir string, entries []entry, i int) {
	for left := dirWindow; i < len(entries) && left > 0; i++ {
		if entries[i].stat.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			continue
		}
		left--
		p := path.Join(dir, entries[i].name)
		if a.f.cache.listing(p) != nil {
			continue
		}
		if !a.flyLocked(ctx, p, func(ctx context.Context) { a.listAhead(ctx, p) }) {
			return
		}
	}
}

// listAhead lists a directory, and fetches its first files if files are being
// read.
func (a *ahead) listAhead(ctx context.Context, p string) {
	l, err := a.f.list(ctx, p)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.readingLocked(a.f.cache.now()) {
		a.fillLocked(ctx, p, &progress{entries: l.entries, pos: -1}, dirWindow/4)
	}
}

// flyLocked starts a fetch of p unless one is under way; false when there are
// too many.
func (a *ahead) flyLocked(ctx context.Context, p string, fetch func(context.Context)) bool {
	if a.flying[p] != nil {
		return true
	}
	select {
	case a.slots <- struct{}{}:
	default:
		return false
	}
	ctx = context.WithoutCancel(ctx) // it is not for the one who asks now
	done := make(chan struct{})
	a.flying[p] = done
	started := a.f.remote.start(func() {
		defer func() { <-a.slots }()
		fetch(ctx)
		a.mu.Lock()
		delete(a.flying, p)
		a.mu.Unlock()
		close(done)
	})
	if !started {
		<-a.slots
		delete(a.flying, p)
		close(done)
	}
	return started
}
