package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// cover lies over a folder of the machine in which a mountpoint is missing that
// the user may not make: a tmpfs in which every entry of the folder is mounted
// (or linked) at its old name, and into which more names can be put. It is
// read-only to the process, which could not make anything there before either.
type cover struct {
	dir      string
	original *os.File // the folder itself
	inside   *os.File // the tmpfs, writable
	device   uint64   // the tmpfs's
	view     string   // where the tmpfs is visible, while it is filled
}

// cover covers a folder, or returns the cover that already does.
func (m *mounts) cover(dir string) (*cover, error) {
	for _, c := range m.covers {
		if c.dir == dir {
			return c, nil
		}
	}
	c := &cover{dir: dir, view: dir}
	var err error
	if c.original, err = os.Open(dir); err != nil {
		return nil, err
	}
	if dir == "/" {
		// Nothing can be mounted over the root for who is in it already.
		c.view = filepath.Join(fdPath(m.shelf), "root")
		if err := os.Mkdir(c.view, 0o755); err != nil { //nolint:gosec // as a root is
			return nil, err
		}
	}
	if err := c.fill(); err != nil {
		return nil, fmt.Errorf("covering %s: %w", dir, err)
	}
	if dir == "/" {
		if err := c.becomeRoot(); err != nil {
			return nil, fmt.Errorf("covering %s: %w", dir, err)
		}
	}
	m.covers = append(m.covers, c)
	return c, nil
}

// coverAt is the cover whose own tmpfs a place lies in, if one's does.
func (m *mounts) coverAt(place string) *cover {
	var st unix.Stat_t
	if unix.Stat(place, &st) != nil {
		return nil
	}
	for _, c := range m.covers {
		if c.device == st.Dev {
			return c
		}
	}
	return nil
}

// fill mounts the tmpfs and puts the folder's entries into it.
func (c *cover) fill() error {
	info, err := c.original.Stat()
	if err != nil {
		return err
	}
	mode := fmt.Sprintf("mode=%o", info.Mode().Perm())
	if err := unix.Mount("tmpfs", c.view, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, mode); err != nil {
		return err
	}
	if c.inside, err = openPath(c.view); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(c.inside.Fd()), &st); err != nil {
		return err
	}
	c.device = st.Dev
	if err := unix.Mount(fdPath(c.inside), c.view, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	const readOnly = unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", c.view, "", readOnly, ""); err != nil {
		return err
	}
	entries, err := c.original.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.show(e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// show lets an entry of the folder appear in the cover.
func (c *cover) show(name string) error {
	from := filepath.Join(fdPath(c.original), name)
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		to, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(to, filepath.Join(fdPath(c.inside), name))
	}
	if err := create(filepath.Join(fdPath(c.inside), name), info.IsDir()); err != nil {
		return err
	}
	return unix.Mount(from, filepath.Join(c.view, name), "", unix.MS_BIND|unix.MS_REC, "")
}

// add puts an empty folder or file into the cover, at a place under its folder.
func (c *cover) add(place string, dir bool) error {
	below, err := filepath.Rel(c.dir, place)
	if err != nil {
		return err
	}
	return create(filepath.Join(fdPath(c.inside), below), dir)
}

// becomeRoot makes the cover the root of everything in the mount namespace. The
// old root stays, hidden, under a folder that is mounted over it again.
func (c *cover) becomeRoot() error {
	aside := ""
	for _, name := range []string{"mnt", "media", "srv", "opt", "usr", "tmp"} {
		if info, err := os.Lstat("/" + name); err == nil && info.IsDir() {
			aside = name
			break
		}
	}
	if aside == "" {
		return errors.New("no folder to put the old root under")
	}
	if err := unix.PivotRoot(c.view, filepath.Join(c.view, aside)); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	c.view = "/"
	if err := os.Chdir("/"); err != nil {
		return err
	}
	old, err := openPath("/" + aside)
	if err != nil {
		return err
	}
	defer func() { _ = old.Close() }()
	return unix.Mount(filepath.Join(fdPath(old), aside), "/"+aside, "", unix.MS_BIND|unix.MS_REC, "")
}
