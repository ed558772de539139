package mount

import (
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
)

// cache remembers what was seen, each thing for the validity and no longer:
// what changes in the pod shows within that time. Only small files' content
// lives longer, as long as attributes seen within the validity say that it is
// still the same. Safe for concurrent use.
type cache struct {
	validity time.Duration
	now      func() time.Time

	mu       sync.Mutex // guards the fields below
	attrs    map[string]attr
	listings map[string]*listing
	files    map[string]*content
	bytes    int // of content
	swept    time.Time
	epoch    uint64            // grows with each change made from here
	floor    uint64            // answers to what was asked before are forgotten
	changes  map[string]change // the last change at a path
}

// change is when something was changed from here, by both clocks.
type change struct {
	epoch uint64
	at    time.Time
}

// attr is a file's attributes and when they were asked for.
type attr struct {
	stat sftp.FileStat
	at   time.Time
}

// listing is a directory's entries, in the order of their names: the order in
// which a shell, `ls` and most programs go through them, which is what lets
// the next one be guessed.
type listing struct {
	entries []entry
	at      time.Time
}

type entry struct {
	name string
	stat sftp.FileStat
}

// content is a small file's bytes. They are never changed.
type content struct {
	data []byte
	stat sftp.FileStat // as seen before the reading began
	at   time.Time
	// since is when a file with these very attributes was first read. Of the
	// time of change SFTP gives whole seconds only, so that only after a
	// while is a later change sure to show.
	since time.Time
	used  bool // by somebody else than the one who foresaw the need
}

// settled tells whether the attributes alone say if the content is still so.
func (f *content) settled() bool { return f.at.Sub(f.since) >= settling }

// maxContent is how many bytes of small files are kept.
const maxContent = 64 << 20

// settling is how old a time of change must be, as seen from here, until the
// next change shows as another one.
const settling = 1500 * time.Millisecond

func newCache(validity time.Duration) *cache {
	return &cache{
		validity: validity,
		now:      time.Now,
		attrs:    make(map[string]attr),
		listings: make(map[string]*listing),
		files:    make(map[string]*content),
		changes:  make(map[string]change),
	}
}

// fresh tells how much longer what was seen at the given time counts.
func (c *cache) fresh(at time.Time) time.Duration {
	return max(0, c.validity-c.now().Sub(at))
}

// begin gives the time and the epoch to hand to put, before a request is made:
// an answer may be as old as its question, and what is asked before a change
// made from here must not be remembered after it.
func (c *cache) begin() (time.Time, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now(), c.epoch
}

// attr gives what is known about a path: its attributes, or that it isn't
// there (known, with a zero attr).
func (c *cache) attr(p string) (a attr, exists, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.attrs[p]; ok && c.fresh(a.at) > 0 {
		return a, true, true
	}
	l, ok := c.listings[path.Dir(p)]
	if !ok || c.fresh(l.at) == 0 || p == "/" {
		return attr{}, false, false
	}
	if e, ok := l.find(path.Base(p)); ok {
		return attr{stat: e.stat, at: l.at}, true, true
	}
	return attr{at: l.at}, false, true
}

// find looks a name up in a listing.
func (l *listing) find(name string) (entry, bool) {
	i, ok := slices.BinarySearchFunc(l.entries, name, func(e entry, name string) int {
		return strings.Compare(e.name, name)
	})
	if !ok {
		return entry{}, false
	}
	return l.entries[i], true
}

// currentLocked tells whether an answer to what was asked in the epoch given
// may be remembered: nothing was changed at p from here since.
func (c *cache) currentLocked(p string, epoch uint64) bool {
	return epoch >= c.floor && c.changes[p].epoch <= epoch
}

// putAttr remembers attributes asked for at the time and in the epoch given.
func (c *cache) putAttr(p string, a attr, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.currentLocked(p, epoch) {
		c.sweepLocked()
		c.attrs[p] = a
	}
}

// listing gives the entries of a directory seen within the validity.
func (c *cache) listing(dir string) *listing {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, ok := c.listings[dir]; ok && c.fresh(l.at) > 0 {
		return l
	}
	return nil
}

func (c *cache) putListing(dir string, l *listing, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.currentLocked(dir, epoch) {
		c.sweepLocked()
		c.listings[dir] = l
	}
}

// content gives a small file's bytes, if they are still what the pod has: seen
// within the validity, or the same by attributes that were.
func (c *cache) content(p string, now attr) *content {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.files[p]
	if !ok || !same(f.stat, now.stat) {
		return nil
	}
	if c.fresh(f.at) == 0 && (!f.settled() || c.fresh(now.at) <= 0) {
		return nil
	}
	f.used = true
	return f
}

// same tells whether two sightings are of the same content, as far as the
// attributes say.
func same(a, b sftp.FileStat) bool {
	return a.Size == b.Size && a.Mtime == b.Mtime && a.Mode == b.Mode
}

func (c *cache) putContent(p string, f *content, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.currentLocked(p, epoch) {
		return
	}
	c.sweepLocked()
	if old, ok := c.files[p]; ok && same(old.stat, f.stat) {
		f.since = old.since
	}
	c.dropContentLocked(p)
	for other := range c.files {
		if c.bytes+len(f.data) <= maxContent {
			break
		}
		c.dropContentLocked(other)
	}
	c.files[p] = f
	c.bytes += len(f.data)
}

func (c *cache) dropContentLocked(p string) {
	if f, ok := c.files[p]; ok {
		c.bytes -= len(f.data)
		delete(c.files, p)
	}
}

// changed forgets what a change made from here at p may have made untrue.
func (c *cache) changed(p string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	for _, q := range []string{p, path.Dir(p)} {
		c.changes[q] = change{c.epoch, c.now()}
		delete(c.attrs, q)
		delete(c.listings, q)
	}
	c.dropContentLocked(p)
}

// forget forgets everything, as after a directory got another name.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.floor = c.epoch
	clear(c.attrs)
	clear(c.listings)
	clear(c.files)
	c.bytes = 0
}

// sweepLocked frees what is no longer valid, once in a validity. Settled
// content stays, within its limit.
func (c *cache) sweepLocked() {
	if c.now().Sub(c.swept) < c.validity {
		return
	}
	c.swept = c.now()
	for p, a := range c.attrs {
		if c.fresh(a.at) == 0 {
			delete(c.attrs, p)
		}
	}
	for p, l := range c.listings {
		if c.fresh(l.at) == 0 {
			delete(c.listings, p)
		}
	}
	for p, f := range c.files {
		if c.fresh(f.at) == 0 && !f.settled() {
			c.dropContentLocked(p)
		}
	}
	for p, ch := range c.changes {
		if c.now().Sub(ch.at) > longestRequest {
			delete(c.changes, p)
		}
	}
}

// longestRequest is how long an answer is waited for at most, however busy the
// tunnel is.
const longestRequest = 2 * time.Minute
