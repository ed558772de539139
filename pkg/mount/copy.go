package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"
)

// CopyConfig says what Copy copies, and where to.
type CopyConfig struct {
	// SFTP opens an SFTP session, as in Config.
	SFTP func(ctx context.Context) (io.ReadWriteCloser, error)
	// Volumes are absolute remote paths of directories or files.
	Volumes []string
	// Target is an existing directory of the caller's; volume /a/b is kept
	// at Target/a/b.
	Target string
	// Interval is the time between two looks at the pod; 0 is a second. It
	// grows where a look takes long.
	Interval time.Duration
	// Limit is how many bytes a volume may hold to be copied; 0 is 256 MiB.
	Limit int64
	// Timeout is how long a request waits for its answer; 0 is ten seconds.
	Timeout time.Duration
	// Log takes what goes wrong; nil for silence.
	Log *slog.Logger
}

const (
	defaultInterval = time.Second
	defaultLimit    = 256 << 20
	// copiesAtOnce is how many files and listings are under way together.
	copiesAtOnce = 16
	// busyShare is the least ratio between the time of waiting and that of
	// looking.
	busyShare = 3
)

// Copier keeps local copies of a pod's volumes in step with them, one way.
type Copier struct {
	cfg     CopyConfig
	remote  *remote
	volumes []*volume
	cancel  context.CancelFunc
	loop    sync.WaitGroup
	once    sync.Once
	err     error

	mu   sync.Mutex // held while the copies change; guards then
	then func(context.Context) error
}

// Copy copies the volumes and returns when the first copy is complete. From
// then on changes in the pod are copied as they are seen, until Close: files
// and symlinks are replaced in one step, and a symlink only when what it points
// to is there, so that the kubelet's swap of a ConfigMap is one here too. What is
// changed here does not go to the pod. ctx bounds the first copy only.
func Copy(ctx context.Context, cfg CopyConfig) (*Copier, error) {
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Limit == 0 {
		cfg.Limit = defaultLimit
	}
	filled := Config{SFTP: cfg.SFTP, Timeout: cfg.Timeout, Log: cfg.Log}.withDefaults()
	cfg.Timeout, cfg.Log = filled.Timeout, filled.Log
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Copier{cfg: cfg, remote: newRemote(filled), cancel: cancel}
	for _, p := range cfg.Volumes {
		p = path.Clean(p)
		c.volumes = append(c.volumes, &volume{remote: p, local: filepath.Join(cfg.Target, p), limit: cfg.Limit})
	}
	for _, v := range c.volumes {
		if err := c.sync(ctx, v); err != nil {
			return nil, errors.Join(fmt.Errorf("copying the pod's %s: %w", v.remote, err), c.Close())
		}
	}
	c.loop.Go(func() { c.follow(life) })
	return c, nil
}

// Then has do called now, and from now on after each look at the pod, until Close:
// never while the copies change. What it returns now is returned, and logged later.
func (c *Copier) Then(ctx context.Context, do func(context.Context) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.then = do
	return do(ctx)
}

// Skipped are the volumes that hold more than the limit and were left empty.
func (c *Copier) Skipped() []string {
	var skipped []string
	for _, v := range c.volumes {
		if v.skipped {
			skipped = append(skipped, v.remote)
		}
	}
	return skipped
}

// Close ends the copying and removes the copies. It may be called more than
// once.
func (c *Copier) Close() error {
	c.once.Do(func() {
		c.cancel()
		c.remote.close()
		c.loop.Wait()
		var errs []error
		for _, v := range c.volumes {
			errs = append(errs, os.RemoveAll(v.local))
			for dir := filepath.Dir(v.local); len(dir) > len(filepath.Clean(c.cfg.Target)); dir = filepath.Dir(dir) {
				if os.Remove(dir) != nil {
					break // another volume lies in it
				}
			}
		}
		c.err = errors.Join(errs...)
	})
	return c.err
}

// follow looks at the pod again and again.
func (c *Copier) follow(ctx context.Context) {
	wait := c.cfg.Interval
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		began := time.Now()
		c.again(ctx)
		wait = max(c.cfg.Interval, busyShare*time.Since(began))
	}
}

// again looks once, and lets who waits for that know.
func (c *Copier) again(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.volumes {
		if v.skipped {
			continue
		}
		if err := c.sync(ctx, v); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("copying the pod's files", "volume", v.remote, "err", err)
		}
	}
	if c.then != nil && ctx.Err() == nil {
		if err := c.then(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("handing on the copies of the pod's files", "err", err)
		}
	}
}

// volume is one of the pod's and its copy. Only one goroutine uses it at a
// time.
type volume struct {
	remote, local string
	limit         int64
	skipped       bool
	have          map[string]copied // by path below remote; "." is the volume
}

// copied is what was last seen of a file, and for how long.
type copied struct {
	stat  sftp.FileStat
	since time.Time // when it was first seen like this
	at    time.Time // when it was copied
}

// settled tells whether the copy is sure to be of what the attributes say: it
// was made when the time of change, in whole seconds, was over.
func (f copied) settled() bool {
	const skew = 5 * time.Minute // between the clocks here and in the pod
	return f.at.Sub(f.since) >= settling || f.at.Sub(f.stat.ModTime()) > skew
}

// sync makes the copy what the volume is now.
func (c *Copier) sync(ctx context.Context, v *volume) error {
	now, err := c.look(ctx, v)
	if err != nil {
		return err
	}
	if v.skipped {
		return os.MkdirAll(v.local, 0o755)
	}
	return c.apply(ctx, v, now)
}

// look reads the tree of the volume.
func (c *Copier) look(ctx context.Context, v *volume) (map[string]sftp.FileStat, error) {
	stat, err := call(ctx, c.remote, func(s *session) (sftp.FileStat, error) {
		info, err := s.client.Stat(v.remote)
		if err != nil {
			return sftp.FileStat{}, err
		}
		return *info.Sys().(*sftp.FileStat), nil
	}, nil)
	if err != nil {
		return nil, err
	}
	tree := map[string]sftp.FileStat{".": stat}
	level := []string{"."}
	if stat.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		level = nil
	}
	for len(level) > 0 {
		below, err := c.lookBelow(ctx, v, level)
		if err != nil {
			return nil, err
		}
		level = nil
		for p, st := range below {
			if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
				level = append(level, p)
			}
		}
		maps.Copy(tree, below)
	}
	var size int64
	for _, st := range tree {
		if st.Mode&syscall.S_IFMT == syscall.S_IFREG {
			size += int64(st.Size)
		}
	}
	if size > v.limit && v.have == nil {
		v.skipped = true
	}
	return tree, nil
}

// lookBelow lists directories, several at once.
func (c *Copier) lookBelow(ctx context.Context, v *volume, dirs []string) (map[string]sftp.FileStat, error) {
	var mu sync.Mutex // guards found
	found := make(map[string]sftp.FileStat)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copiesAtOnce)
	for _, dir := range dirs {
		g.Go(func() error {
			l, err := call(ctx, c.remote, func(s *session) (*listing, error) {
				return readDir(s.client, path.Join(v.remote, dir), time.Time{})
			}, nil)
			if errno := errnoOf(err); errno == syscall.ENOENT || errno == syscall.EACCES {
				return nil // gone meanwhile, or not for the pod to see
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, e := range l.entries {
				found[path.Join(dir, e.name)] = e.stat
			}
			return nil
		})
	}
	return found, g.Wait()
}

// sortedPaths are a tree's, parents before children.
func sortedPaths[T any](tree map[string]T) []string {
	return slices.Sorted(maps.Keys(tree))
}
