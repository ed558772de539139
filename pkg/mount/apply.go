package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"
)

// apply makes the copy what was seen of the volume, in this order:
//
//  1. what has become another kind of file goes
//  2. directories, then files, are made or replaced
//  3. symlinks are, as now all they can point to is there
//  4. what is no longer in the pod goes
func (c *Copier) apply(ctx context.Context, v *volume, now map[string]sftp.FileStat) error {
	next := make(map[string]copied, len(now))
	seen := time.Now()
	var files, links []string
	for _, p := range sortedPaths(now) {
		st := now[p]
		old, known := v.have[p]
		if known && kind(old.stat) != kind(st) {
			if err := os.RemoveAll(v.path(p)); err != nil {
				return err
			}
			known = false
		}
		entry := copied{stat: st, since: seen, at: seen}
		unchanged := known && same(old.stat, st)
		if unchanged {
			entry.since, entry.at = old.since, old.at
		}
		switch kind(st) {
		case syscall.S_IFDIR:
			if err := v.makeDir(p, st); err != nil {
				return err
			}
		case syscall.S_IFREG:
			if !unchanged || !old.settled() {
				entry.at = seen
				files = append(files, p)
			}
		case syscall.S_IFLNK:
			links = append(links, p)
		default:
			continue // sockets and devices can't be copied
		}
		next[p] = entry
	}
	if err := c.each(ctx, files, func(ctx context.Context, p string) error { return c.copyFile(ctx, v, p, now[p]) }); err != nil {
		return err
	}
	if err := c.each(ctx, links, func(ctx context.Context, p string) error { return c.copyLink(ctx, v, p) }); err != nil {
		return err
	}
	gone := sortedPaths(v.have)
	slices.Reverse(gone)
	for _, p := range gone {
		if _, still := next[p]; !still {
			if err := os.RemoveAll(v.path(p)); err != nil {
				return err
			}
		}
	}
	v.have = next
	return nil
}

func kind(st sftp.FileStat) uint32 { return st.Mode & syscall.S_IFMT }

// path is where a file of the volume lies here.
func (v *volume) path(p string) string { return filepath.Join(v.local, filepath.FromSlash(p)) }

// makeDir makes a directory that its owner can fill.
func (v *volume) makeDir(p string, st sftp.FileStat) error {
	if err := os.MkdirAll(v.path(p), 0o755); err != nil {
		return err
	}
	return os.Chmod(v.path(p), os.FileMode(st.Mode&0o777|0o700))
}

// each calls do for each path, several at once. What is gone from the pod by
// now, or not for its process to read, is left out.
func (c *Copier) each(ctx context.Context, paths []string, do func(context.Context, string) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copiesAtOnce)
	for _, p := range paths {
		g.Go(func() error {
			err := do(ctx, p)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
				c.cfg.Log.Debug("not copied", "path", p, "err", err)
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

// copyFile replaces the copy of a file in one step.
func (c *Copier) copyFile(ctx context.Context, v *volume, p string, st sftp.FileStat) error {
	if err := os.MkdirAll(filepath.Dir(v.path(p)), 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(v.path(p)), ".telepresence-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // in vain when all went well
	if err := errors.Join(c.download(ctx, path.Join(v.remote, p), temp), temp.Close()); err != nil {
		return fmt.Errorf("copying %s: %w", path.Join(v.remote, p), err)
	}
	if err := os.Chmod(temp.Name(), os.FileMode(st.Mode&0o777|0o400)); err != nil {
		return err
	}
	if err := os.Chtimes(temp.Name(), st.AccessTime(), st.ModTime()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), v.path(p))
}

// download writes a file of the pod to w.
func (c *Copier) download(ctx context.Context, p string, w io.Writer) error {
	const piece = 1 << 20
	file, err := call(ctx, c.remote, func(s *session) (*sftp.File, error) { return s.client.Open(p) },
		func(_ *session, f *sftp.File) { _ = f.Close() })
	if err != nil {
		return err
	}
	defer c.remote.start(func() { _ = file.Close() })
	for off := int64(0); ; off += piece {
		data, err := call(ctx, c.remote, func(*session) ([]byte, error) {
			buf := make([]byte, piece)
			n, err := file.ReadAt(buf, off)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return buf[:n], err
		}, nil)
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		if len(data) < piece {
			return nil
		}
	}
}

// copyLink replaces the copy of a symlink in one step, if it points elsewhere.
func (c *Copier) copyLink(ctx context.Context, v *volume, p string) error {
	target, err := call(ctx, c.remote, func(s *session) (string, error) { return s.client.ReadLink(path.Join(v.remote, p)) }, nil)
	if err != nil {
		return err
	}
	if old, err := os.Readlink(v.path(p)); err == nil && old == target {
		return nil
	}
	temp := filepath.Join(filepath.Dir(v.path(p)), ".telepresence-link-"+filepath.Base(p))
	_ = os.Remove(temp) // left by a copy that was interrupted
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	return os.Rename(temp, v.path(p))
}
