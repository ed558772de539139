package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts is what lies where in the sandbox. The files of our own lie on a shelf,
// a tmpfs that no path leads to: the folder it is mounted on is mounted over it
// again.
type mounts struct {
	shelf  *os.File
	covers []*cover
	kept   []kept
	made   []string // mountpoints made on the machine, or in a volume for what is kept there, in order
	own    int      // how many of them are on the machine
}

// setUp mounts the pod's files.
func (m *mounts) setUp(cfg childConfig) error {
	// What the machine mounts later shall appear here too, and nothing of ours there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return &Error{Op: "making mounts private", Err: err}
	}
	if err := m.setUpShelf(); err != nil {
		return &Error{Op: "making room for files", Err: err}
	}
	files, err := ownFiles(cfg)
	if err != nil {
		return err
	}
	for _, f := range files {
		source, err := m.put(filepath.Base(f.path), f.content)
		if err == nil {
			err = m.bind(Bind{Source: source, Target: f.path})
		}
		if err != nil {
			return fmt.Errorf("replacing %s: %w", f.path, err)
		}
	}
	if err := errors.Join(m.hideCaches(), m.hideSockets()); err != nil {
		return err
	}
	m.kept = openKept(cfg.Keep, cfg.Binds)
	binds := slices.Clone(cfg.Binds)
	slices.SortStableFunc(binds, func(a, b Bind) int { return strings.Compare(a.Target, b.Target) })
	for _, b := range binds {
		if err := m.bind(b); err != nil {
			return fmt.Errorf("putting %s at %s: %w", b.Source, b.Target, err)
		}
	}
	m.own = len(m.made)
	return nil
}

// ownFile is a file that has another content in the sandbox.
type ownFile struct{ path, content string }

func ownFiles(cfg childConfig) ([]ownFile, error) {
	_, server := addresses(cfg.Addresses)
	files := []ownFile{
		{"/etc/resolv.conf", resolvConf(cfg.ResolvConf, server)},
		{"/etc/hosts", hostsFile(cfg.Hosts)},
	}
	nsswitch, err := os.ReadFile("/etc/nsswitch.conf")
	if err == nil {
		files = append(files, ownFile{"/etc/nsswitch.conf", nsswitchConf(string(nsswitch))})
	} else if !errors.Is(err, fs.ErrNotExist) { // without it, libraries do what we want
		return nil, fmt.Errorf("reading nsswitch.conf: %w", err)
	}
	if _, err := os.Stat("/etc/hostname"); err == nil && cfg.Hostname != "" {
		files = append(files, ownFile{"/etc/hostname", cfg.Hostname + "\n"})
	}
	return files, nil
}

// hideCaches hides the daemons that C libraries ask for names before they look
// at nsswitch.conf, or beside it.
func (m *mounts) hideCaches() error {
	for _, dir := range []string{"/run/nscd", "/var/run/nscd", "/var/db/nscd"} {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || real != dir {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "size=0,mode=755"); err != nil {
			return fmt.Errorf("hiding %s: %w", dir, err)
		}
	}
	return nil
}

// setUpShelf mounts a tmpfs and hides it.
func (m *mounts) setUpShelf() error {
	var last error
	for _, dir := range []string{"/mnt", "/media", "/srv", "/opt", "/usr", "/tmp"} {
		if last = m.shelve(dir); last == nil {
			return nil
		}
	}
	return last
}

func (m *mounts) shelve(dir string) error {
	under, err := openPath(dir)
	if err != nil {
		return err
	}
	defer func() { _ = under.Close() }()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if m.shelf, err = openPath(dir); err == nil {
		err = m.hideShelf(under, dir)
	}
	if err != nil {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
	return err
}

// hideShelf mounts the folder under the shelf over it. The copy of a folder has
// what is mounted on it, the shelf included, which would lie on top again: so it
// can't be copied meanwhile.
func (m *mounts) hideShelf(under *os.File, dir string) error {
	if err := unix.Mount("", fdPath(m.shelf), "", unix.MS_UNBINDABLE, ""); err != nil {
		return err
	}
	if err := unix.Mount(fdPath(under), dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", fdPath(m.shelf), "", unix.MS_PRIVATE, "")
}

// put puts a file on the shelf and returns its path.
func (m *mounts) put(name, content string) (string, error) {
	path := filepath.Join(fdPath(m.shelf), name)
	return path, os.WriteFile(path, []byte(content), 0o644) //nolint:gosec // any user may read resolv.conf and the like
}

// bind mounts a file or a folder at a second place, which is made if there is
// none.
func (m *mounts) bind(b Bind) error {
	info, err := os.Stat(b.Source)
	if err != nil {
		return err
	}
	target, err := m.mountpoint(b.Target, info.IsDir())
	if err != nil {
		return err
	}
	if err := unix.Mount(b.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !b.ReadOnly {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return err
	}
	// The flags that a mount from outside has can't be taken off it.
	kept := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME)
	return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|kept, "")
}

// mountpoint makes sure that path exists, and returns it without symbolic links.
// What is missing is made on the machine, to be removed with the sandbox, where
// the user may do that; elsewhere it only appears to exist (see cover).
func (m *mounts) mountpoint(path string, isDir bool) (string, error) {
	there, missing, err := resolve(path)
	if err != nil || missing == nil {
		return there, err
	}
	for i, name := range missing {
		next := filepath.Join(there, name)
		if err := m.appear(next, isDir || i < len(missing)-1); err != nil {
			return "", err
		}
		there = next
	}
	return there, nil
}

// appear makes one missing place.
func (m *mounts) appear(place string, dir bool) error {
	parent := filepath.Dir(place)
	if c := m.coverAt(parent); c != nil {
		return c.add(place, dir)
	}
	err := create(place, dir)
	if err == nil {
		m.made = append(m.made, place)
		return nil
	}
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) {
		return err
	}
	c, err := m.cover(parent)
	if err != nil {
		return err
	}
	return c.add(place, dir)
}

// create makes an empty folder or file.
func create(path string, dir bool) error {
	if dir {
		return os.Mkdir(path, 0o755) //nolint:gosec // as the folders of a pod
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // as above
	if err != nil {
		return err
	}
	return f.Close()
}

// remove removes the mountpoints that were made.
func (m *mounts) remove() {
	for _, path := range slices.Backward(m.made) {
		_ = unix.Unmount(path, unix.MNT_DETACH)
		if !m.isKept(path) {
			_ = os.Remove(path)
		}
	}
}

// removeMade does it where the keeper was killed, from outside: there the
// mountpoints are empty, or somebody else's by now.
func removeMade(made []string) {
	for _, path := range slices.Backward(made) {
		if info, err := os.Lstat(path); err == nil && (info.IsDir() || info.Mode().IsRegular() && info.Size() == 0) {
			_ = os.Remove(path) // fails for a folder that isn't empty
		}
	}
}

// resolve follows path, and its symbolic links, as far as it exists: to an
// existing place and the names that are missing below it.
func resolve(path string) (there string, missing []string, err error) {
	there = "/"
	rest := strings.Split(filepath.Clean("/"+path), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" {
			continue
		}
		if name == ".." {
			there = filepath.Dir(there)
			continue
		}
		next := filepath.Join(there, name)
		info, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			return there, append([]string{name}, rest...), nil
		}
		if err != nil {
			return "", nil, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			there = next
			continue
		}
		if links++; links > 40 {
			return "", nil, &fs.PathError{Op: "follow", Path: path, Err: unix.ELOOP}
		}
		to, err := os.Readlink(next)
		if err != nil {
			return "", nil, err
		}
		if filepath.IsAbs(to) {
			there = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return there, nil, nil
}

// openPath opens a place to refer to, whatever is mounted over it later.
func openPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// fdPath is a path to what f refers to.
func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
