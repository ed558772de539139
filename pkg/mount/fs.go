package mount

import (
	"context"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/pkg/sftp"
)

// fileSystem is what all nodes have in common. Safe for concurrent use.
type fileSystem struct {
	base   string // remote path of the root
	remote *remote
	cache  *cache
	ahead  *ahead
	owner  owner
}

func newFileSystem(cfg Config, r *remote) *fileSystem {
	f := &fileSystem{
		base:   path.Clean(cfg.Root),
		remote: r,
		cache:  newCache(cfg.Validity),
		owner:  owner{podUID: uint32(cfg.UID), podGID: uint32(cfg.GID), uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())},
	}
	f.ahead = newAhead(f)
	return f
}

func (f *fileSystem) root() *node { return &node{fsys: f} }

// owner turns the pod's process's user into the local one, and back.
type owner struct{ podUID, podGID, uid, gid uint32 }

func (o owner) local(uid, gid uint32) fuse.Owner {
	if uid == o.podUID {
		uid = o.uid
	}
	if gid == o.podGID {
		gid = o.gid
	}
	return fuse.Owner{Uid: uid, Gid: gid}
}

func (o owner) pod(uid, gid uint32) (int, int) {
	if uid == o.uid {
		uid = o.podUID
	}
	if gid == o.gid {
		gid = o.podGID
	}
	return int(uid), int(gid)
}

// node is a file, directory or symlink. Its place in go-fuse's tree is its
// path; SFTP knows no inode numbers. Safe for concurrent use.
type node struct {
	fs.Inode
	fsys *fileSystem

	mu      sync.Mutex       // guards the fields below
	pages   version          // what the kernel's page cache may hold
	writers map[*handle]bool // open files with writes that may be under way
}

// version is a state of a file's content and when it was first seen.
type version struct {
	stat  sftp.FileStat
	since time.Time
	from  time.Time // when the kernel began to cache it
}

func (n *node) path() string { return path.Join(n.fsys.base, n.Path(n.Root())) }

func (n *node) child(name string) string { return path.Join(n.path(), name) }

// stat gives a path's attributes, asking the pod if they aren't known.
func (f *fileSystem) stat(ctx context.Context, p string) (attr, error) {
	a, exists, known := f.cache.attr(p)
	if !known {
		f.ahead.wait(ctx, p)
		a, exists, known = f.cache.attr(p)
	}
	if known && !exists {
		return a, syscall.ENOENT
	}
	if known {
		return a, nil
	}
	at, epoch := f.cache.begin()
	stat, err := call(ctx, f.remote, func(s *session) (sftp.FileStat, error) {
		info, err := s.client.Lstat(p)
		if err != nil {
			return sftp.FileStat{}, err
		}
		return *info.Sys().(*sftp.FileStat), nil
	}, nil)
	if err != nil {
		return attr{at: at}, err
	}
	a = attr{stat: stat, at: at}
	f.cache.putAttr(p, a, epoch)
	return a, nil
}

// list gives a directory's entries, asking the pod if they aren't known.
func (f *fileSystem) list(ctx context.Context, dir string) (*listing, error) {
	if l := f.cache.listing(dir); l != nil {
		return l, nil
	}
	at, epoch := f.cache.begin()
	l, err := call(ctx, f.remote, func(s *session) (*listing, error) { return readDir(s.client, dir, at) }, nil)
	if err != nil {
		return nil, err
	}
	f.cache.putListing(dir, l, epoch)
	return l, nil
}

// readDir reads a directory, sorted by name.
func readDir(client *sftp.Client, dir string, at time.Time) (*listing, error) {
	infos, err := client.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	l := &listing{at: at, entries: make([]entry, 0, len(infos))}
	for _, info := range infos {
		l.entries = append(l.entries, entry{name: info.Name(), stat: *info.Sys().(*sftp.FileStat)})
	}
	slices.SortFunc(l.entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return l, nil
}

// fill writes attributes in the kernel's form.
func (f *fileSystem) fill(out *fuse.Attr, st sftp.FileStat) {
	const block = 512
	out.Mode = st.Mode
	out.Size = st.Size
	out.Blocks = (st.Size + block - 1) / block
	out.Blksize = 1 << 17
	out.Nlink = 1
	out.Owner = f.owner.local(st.UID, st.GID)
	out.Mtime, out.Ctime, out.Atime = uint64(st.Mtime), uint64(st.Mtime), uint64(st.Atime)
}

// entry makes the answer to a lookup: the child's node and attributes, both
// valid as long as what was seen.
func (n *node) entry(ctx context.Context, name string, a attr, out *fuse.EntryOut) *fs.Inode {
	f := n.fsys
	f.fill(&out.Attr, a.stat)
	valid := f.cache.fresh(a.at)
	out.SetEntryTimeout(valid)
	out.SetAttrTimeout(valid)
	kind := a.stat.Mode & syscall.S_IFMT
	if child := n.GetChild(name); child != nil && child.Mode() == kind {
		return child
	}
	return n.NewInode(ctx, &node{fsys: f}, fs.StableAttr{Mode: kind})
}

// Lookup finds a child.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if child := n.GetChild(name); child != nil {
		if known, ok := child.Operations().(*node); ok {
			known.drain(ctx)
		}
	}
	a, err := n.fsys.stat(ctx, n.child(name))
	if err != nil {
		errno := errnoOf(err)
		if errno == syscall.ENOENT {
			out.SetEntryTimeout(n.fsys.cache.fresh(a.at))
		}
		return nil, errno
	}
	return n.entry(ctx, name, a, out), 0
}

// Getattr gives a file's attributes; of one that was deleted while open, by
// its handle.
func (n *node) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f := n.fsys
	n.drain(ctx)
	if _, parent := n.Parent(); parent == nil && !n.IsRoot() {
		h, ok := fh.(*handle)
		if !ok {
			return syscall.ENOENT
		}
		st, err := h.stat(ctx)
		if err == nil {
			f.fill(&out.Attr, st)
		}
		return errnoOf(err)
	}
	a, err := f.stat(ctx, n.path())
	if err != nil {
		return errnoOf(err)
	}
	f.fill(&out.Attr, a.stat)
	out.SetTimeout(f.cache.fresh(a.at))
	return 0
}

// Setattr changes mode, owner, size or times.
func (n *node) Setattr(ctx context.Context, fh fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	f, p := n.fsys, n.path()
	n.drain(ctx)
	var err error
	if mode, ok := in.GetMode(); ok {
		err = f.change(ctx, func(c *sftp.Client) error { return c.Chmod(p, os.FileMode(mode&0o7777)) }, p)
	}
	if size, ok := in.GetSize(); ok && err == nil {
		err = f.change(ctx, func(c *sftp.Client) error { return c.Truncate(p, int64(size)) }, p)
	}
	if err == nil {
		err = n.chown(ctx, p, in)
	}
	if err == nil {
		err = n.chtimes(ctx, p, in)
	}
	if err != nil {
		return errnoOf(err)
	}
	return n.Getattr(ctx, fh, out)
}

// chown sets the owner. SFTP sets both ids at once.
func (n *node) chown(ctx context.Context, p string, in *fuse.SetAttrIn) error {
	uid, setUID := in.GetUID()
	gid, setGID := in.GetGID()
	if !setUID && !setGID {
		return nil
	}
	a, err := n.fsys.stat(ctx, p)
	if err != nil {
		return err
	}
	podUID, podGID := n.fsys.owner.pod(uid, gid)
	if !setUID {
		podUID = int(a.stat.UID)
	}
	if !setGID {
		podGID = int(a.stat.GID)
	}
	return n.fsys.change(ctx, func(c *sftp.Client) error { return c.Chown(p, podUID, podGID) }, p)
}

// chtimes sets the times. SFTP sets both at once, in whole seconds.
func (n *node) chtimes(ctx context.Context, p string, in *fuse.SetAttrIn) error {
	atime, setA := in.GetATime()
	mtime, setM := in.GetMTime()
	if !setA && !setM {
		return nil
	}
	a, err := n.fsys.stat(ctx, p)
	if err != nil {
		return err
	}
	if !setA {
		atime = a.stat.AccessTime()
	}
	if !setM {
		mtime = a.stat.ModTime()
	}
	return n.fsys.change(ctx, func(c *sftp.Client) error { return c.Chtimes(p, atime, mtime) }, p)
}

// change makes a request that changes what is at the paths.
func (f *fileSystem) change(ctx context.Context, op func(*sftp.Client) error, paths ...string) error {
	_, err := call(ctx, f.remote, func(s *session) (struct{}, error) { return struct{}{}, op(s.client) }, nil)
	for _, p := range paths {
		f.cache.changed(p)
	}
	return err
}

// Access answers access(2). The pod's own permissions are checked when a file
// is opened; what can be told beforehand is whether a program may be run.
func (n *node) Access(ctx context.Context, mask uint32) syscall.Errno {
	const execute = 1
	if mask&execute == 0 {
		return 0
	}
	a, err := n.fsys.stat(ctx, n.path())
	if err != nil {
		return errnoOf(err)
	}
	if a.stat.Mode&0o111 == 0 {
		return syscall.EACCES
	}
	return 0
}

// Statfs gives the file system's size and room.
func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	p := n.path()
	st, err := call(ctx, n.fsys.remote, func(s *session) (*sftp.StatVFS, error) { return s.client.StatVFS(p) }, nil)
	if err != nil {
		return errnoOf(err)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize = uint32(st.Bsize), uint32(st.Frsize)
	out.NameLen = uint32(st.Namemax)
	return 0
}
