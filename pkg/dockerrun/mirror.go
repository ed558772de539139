package dockerrun

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// mirror keeps a docker volume what a folder or file of this machine is, one way.
// Only one goroutine uses it at a time.
type mirror struct {
	source string
	single bool   // source is a file: it has its name in the volume
	volume string // docker's name
	have   map[string]mirrored
}

// mirrored is a file as it was sent.
type mirrored struct {
	info os.FileInfo
	link string // where a symlink points
}

func (m mirrored) same(o mirrored) bool {
	return m.link == o.link && m.info.Mode() == o.info.Mode() &&
		(m.info.IsDir() || m.link != "" || os.SameFile(m.info, o.info) && m.info.ModTime().Equal(o.info.ModTime()) && m.info.Size() == o.info.Size())
}

// newMirror looks at what is to be kept in the volume.
func newMirror(source, volume string) (*mirror, error) {
	info, err := os.Stat(source)
	if err != nil {
		return nil, fmt.Errorf("looking at what the container is to be shown: %w", err)
	}
	return &mirror{source: source, single: !info.IsDir(), volume: volume}, nil
}

// update sends what has changed, unless that is nothing, over what open returns.
func (m *mirror) update(ctx context.Context, open func() (net.Conn, error)) error {
	now, err := m.look()
	if err != nil {
		return err
	}
	if m.have != nil && maps.EqualFunc(now, m.have, mirrored.same) {
		return nil
	}
	c, err := open()
	if err != nil {
		return fmt.Errorf("sending the pod's files to the engine: %w", err)
	}
	defer c.Close()
	var cut sync.WaitGroup
	done := make(chan struct{})
	cut.Go(func() {
		select {
		case <-ctx.Done():
			_ = c.SetDeadline(time.Now())
		case <-done:
		}
	})
	err = m.send(c, now)
	close(done)
	cut.Wait()
	if err != nil {
		return fmt.Errorf("sending the pod's files to the engine: %w", err)
	}
	m.have = now
	return nil
}

// send sends what has changed, and hears whether it has arrived.
func (m *mirror) send(c net.Conn, now map[string]mirrored) error {
	var answer [1]byte
	err := m.write(c, now)
	if err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	if err == nil && answer[0] != answerYes {
		err = syscall.EIO // the helper has said why
	}
	return err
}

// look reads the tree of the source; paths are relative and have slashes.
func (m *mirror) look() (map[string]mirrored, error) {
	tree := make(map[string]mirrored)
	err := filepath.WalkDir(m.source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entry := mirrored{}
		if entry.info, err = d.Info(); err != nil {
			return err
		}
		switch kind := d.Type(); {
		case kind == fs.ModeSymlink:
			if entry.link, err = os.Readlink(path); err != nil {
				return err
			}
		case !kind.IsRegular() && !kind.IsDir():
			return nil
		}
		name, err := filepath.Rel(m.source, path)
		if m.single {
			name = filepath.Base(path)
		}
		tree[filepath.ToSlash(name)] = entry
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the copies of the pod's files: %w", err)
	}
	return tree, nil
}

// write writes what makes the volume what was seen, as a tar archive whose
// entries are carried out in their order:
//
//  1. what has become another kind of file goes
//  2. directories and files are made or replaced
//  3. symlinks are, as now all they can point to is there
//  4. what is no longer here goes
func (m *mirror) write(w io.Writer, now map[string]mirrored) error {
	out, have := tar.NewWriter(w), maps.Clone(m.have)
	var changed, links []string
	for _, p := range slices.Sorted(maps.Keys(now)) { // parents before children
		old, known := m.have[p]
		if known && old.info.Mode().Type() != now[p].info.Mode().Type() {
			if err := out.WriteHeader(goneHeader(p)); err != nil {
				return err
			}
			// With all below it: their paths may soon lead elsewhere.
			maps.DeleteFunc(have, func(below string, _ mirrored) bool { return strings.HasPrefix(below, p+"/") })
		}
		switch {
		case known && old.same(now[p]):
		case now[p].link != "":
			links = append(links, p)
		default:
			changed = append(changed, p)
		}
	}
	for _, p := range append(changed, links...) {
		if err := m.writeEntry(out, p, now[p]); err != nil {
			return err
		}
	}
	gone := slices.Sorted(maps.Keys(have))
	slices.Reverse(gone)
	for _, p := range gone {
		if _, still := now[p]; !still {
			if err := out.WriteHeader(goneHeader(p)); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

// recordGone marks an entry of what is to be removed.
const recordGone = "TELEPRESENCE.gone"

func goneHeader(path string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: path, PAXRecords: map[string]string{recordGone: "1"}, Format: tar.FormatPAX}
}

func (m *mirror) writeEntry(out *tar.Writer, p string, entry mirrored) error {
	header := &tar.Header{Name: p, Mode: int64(entry.info.Mode().Perm()), ModTime: entry.info.ModTime(), Format: tar.FormatPAX}
	switch {
	case entry.info.IsDir():
		header.Typeflag = tar.TypeDir
		return out.WriteHeader(header)
	case entry.link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, entry.link
		return out.WriteHeader(header)
	}
	path := m.source
	if !m.single {
		path = filepath.Join(m.source, filepath.FromSlash(p))
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	header.Typeflag, header.Size = tar.TypeReg, entry.info.Size()
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.CopyN(out, file, header.Size)
	return err
}

// applyFiles carries out what a mirror has written, below a folder.
func applyFiles(in io.Reader, folder string) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	archive := tar.NewReader(in)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.PAXRecords[recordGone] != "" {
			err = root.RemoveAll(header.Name)
		} else {
			err = applyEntry(root, header, archive)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

// applyEntry makes one file, in one step where another was.
func applyEntry(root *os.Root, header *tar.Header, content io.Reader) error {
	const temp = ".telepresence-copy"
	switch header.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(header.Name, 0o755); err != nil {
			return err
		}
		return root.Chmod(header.Name, forAll(header.Mode|0o700))
	case tar.TypeSymlink:
		_ = root.Remove(temp) // left by an update that was cut off
		if err := root.Symlink(header.Linkname, temp); err != nil {
			return err
		}
		return root.Rename(temp, header.Name)
	}
	file, err := root.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := root.Chmod(temp, forAll(header.Mode)); err != nil {
		return err
	}
	if err := root.Chtimes(temp, header.ModTime, header.ModTime); err != nil {
		return err
	}
	return root.Rename(temp, header.Name)
}

// forAll gives everybody what the owner may: nobody but the session's container
// sees the volume, and its user's number isn't the one that the file has in the
// pod.
func forAll(mode int64) os.FileMode {
	owner := mode >> 6 & 7
	return os.FileMode(mode&0o777 | owner<<3 | owner)
}
