package mount

import (
	"context"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/pkg/sftp"
)

// Readdir lists a directory. The attributes come with the names, so that the
// lookups that follow need no further request.
func (n *node) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	p := n.path()
	n.fsys.ahead.wait(ctx, p)
	l, err := n.fsys.list(ctx, p)
	if err != nil {
		return nil, errnoOf(err)
	}
	n.fsys.ahead.listed(ctx, p, l)
	entries := make([]fuse.DirEntry, len(l.entries))
	for i, e := range l.entries {
		entries[i] = fuse.DirEntry{Name: e.name, Mode: e.stat.Mode & syscall.S_IFMT}
	}
	return fs.NewListDirStream(entries), 0
}

// Readlink gives a symlink's target as it is in the pod.
func (n *node) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	p := n.path()
	target, err := call(ctx, n.fsys.remote, func(s *session) (string, error) { return s.client.ReadLink(p) }, nil)
	return []byte(target), errnoOf(err)
}

// Mkdir makes a directory.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	p := n.child(name)
	return n.made(ctx, name, out, func(c *sftp.Client) error {
		if err := c.Mkdir(p); err != nil {
			return err
		}
		return c.Chmod(p, os.FileMode(mode&0o7777))
	})
}

// Symlink makes a symlink.
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	p := n.child(name)
	return n.made(ctx, name, out, func(c *sftp.Client) error { return c.Symlink(target, p) })
}

// Link gives a file another name.
func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	old, ok := target.(*node)
	if !ok {
		return nil, syscall.EXDEV
	}
	from, to := old.path(), n.child(name)
	return n.made(ctx, name, out, func(c *sftp.Client) error { return c.Link(from, to) })
}

// made makes a child by op and looks it up.
func (n *node) made(ctx context.Context, name string, out *fuse.EntryOut, op func(*sftp.Client) error) (*fs.Inode, syscall.Errno) {
	p := n.child(name)
	if err := n.fsys.change(ctx, op, p); err != nil {
		return nil, errnoOf(err)
	}
	a, err := n.fsys.stat(ctx, p)
	if err != nil {
		return nil, errnoOf(err)
	}
	return n.entry(ctx, name, a, out), 0
}

// Unlink removes a file.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	p := n.child(name)
	return errnoOf(n.fsys.change(ctx, func(c *sftp.Client) error { return c.Remove(p) }, p))
}

// Rmdir removes an empty directory.
func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	p := n.child(name)
	return errnoOf(n.fsys.change(ctx, func(c *sftp.Client) error { return c.RemoveDirectory(p) }, p))
}

// renameNoReplace is RENAME_NOREPLACE of renameat2(2), the only flag honoured.
const renameNoReplace = 1

// Rename moves a child, replacing what has the new name, as one step.
func (n *node) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := newParent.(*node)
	if !ok {
		return syscall.EXDEV
	}
	if flags&^renameNoReplace != 0 {
		return syscall.EINVAL
	}
	from, dest := n.child(name), to.child(newName)
	if moved := n.GetChild(name); moved != nil {
		if m, ok := moved.Operations().(*node); ok {
			m.drain(ctx)
		}
	}
	err := n.fsys.change(ctx, func(c *sftp.Client) error {
		if flags&renameNoReplace != 0 {
			if _, err := c.Lstat(dest); err == nil {
				return syscall.EEXIST
			}
		}
		return c.PosixRename(from, dest)
	}, from, dest)
	n.fsys.cache.forget()
	return errnoOf(err)
}

// Create makes a file and opens it.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	f, p := n.fsys, n.child(name)
	type created struct {
		file *sftp.File
		stat sftp.FileStat
		on   *session
	}
	at, _ := f.cache.begin()
	c, err := call(ctx, f.remote, func(s *session) (created, error) {
		file, err := s.client.OpenFile(p, int(flags)&openFlags|os.O_CREATE)
		if err != nil {
			return created{}, err
		}
		if perm := os.FileMode(mode & 0o7777); perm != 0o644 {
			err = s.client.Chmod(p, perm)
		}
		if err == nil {
			var info os.FileInfo
			if info, err = file.Stat(); err == nil {
				return created{file, *info.Sys().(*sftp.FileStat), s}, nil
			}
		}
		_ = file.Close()
		return created{}, err
	}, func(_ *session, c created) { _ = c.file.Close() })
	f.cache.changed(p)
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	inode := n.entry(ctx, name, attr{stat: c.stat, at: at}, out)
	owner, ok := inode.Operations().(*node)
	if !ok {
		return nil, nil, 0, syscall.EIO
	}
	return inode, newHandle(owner, c.stat.Size, flags, c.on, c.file), 0, 0
}
