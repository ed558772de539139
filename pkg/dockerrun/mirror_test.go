package dockerrun

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// engineSide is where a mirror's files arrive, and what was sent last.
type engineSide struct {
	t    *testing.T
	to   string
	sent int // bytes; 0: there was no stream
}

func (e *engineSide) update(m *mirror) {
	e.t.Helper()
	e.sent = 0
	var applying sync.WaitGroup
	err := m.update(e.t.Context(), func() (net.Conn, error) {
		here, there := net.Pipe()
		applying.Go(func() {
			defer there.Close()
			var seen bytes.Buffer
			if err := applyFiles(io.TeeReader(there, &seen), e.to); err != nil {
				e.t.Error(err)
				return
			}
			e.sent = seen.Len()
			_, _ = there.Write([]byte{answerYes})
		})
		return here, nil
	})
	applying.Wait()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *engineSide) has(name, want string) {
	e.t.Helper()
	if got, err := os.ReadFile(filepath.Join(e.to, name)); err != nil || string(got) != want {
		e.t.Errorf("%s is %q, %v; want %q", name, got, err, want)
	}
}

func (e *engineSide) lacks(name string) {
	e.t.Helper()
	if _, err := os.Lstat(filepath.Join(e.to, name)); !errors.Is(err, fs.ErrNotExist) {
		e.t.Errorf("%s is still there: %v", name, err)
	}
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path+"~", []byte(text), mode), os.Rename(path+"~", path)); err != nil {
		t.Fatal(err)
	}
}

func TestMirror(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	e := &engineSide{t: t, to: t.TempDir()}
	put(t, from+"/..1/key", "one", 0o400)
	put(t, from+"/plain", strings.Repeat("x", 100000), 0o600)
	put(t, from+"/folder/file", "in a folder", 0o644)
	if err := errors.Join(os.Symlink("..1", from+"/..data"), os.Symlink("..data/key", from+"/key")); err != nil {
		t.Fatal(err)
	}
	m, err := newMirror(from, "volume")
	if err != nil {
		t.Fatal(err)
	}
	e.update(m)
	e.has("key", "one")
	e.has("plain", strings.Repeat("x", 100000))
	if info, err := os.Stat(e.to + "/key"); err != nil || info.Mode() != 0o444 {
		t.Errorf("key is not for everybody: %v, %v", info, err)
	}
	if e.update(m); e.sent != 0 {
		t.Errorf("%d bytes are sent where nothing has changed", e.sent)
	}

	// The kubelet's swap; a file of the same size, and one that becomes a folder's link.
	put(t, from+"/..2/key", "two", 0o400)
	put(t, from+"/..2/file", "not to go", 0o400)
	if err := errors.Join(
		os.Symlink("..2", from+"/..next"), os.Rename(from+"/..next", from+"/..data"), os.RemoveAll(from+"/..1"),
		os.RemoveAll(from+"/folder"), os.Symlink("..2", from+"/folder"),
	); err != nil {
		t.Fatal(err)
	}
	put(t, e.to+"/theirs", "the container's", 0o600)
	if e.update(m); e.sent > 50000 {
		t.Errorf("%d bytes are sent: what has not changed too", e.sent)
	}
	e.has("key", "two")
	e.has("folder/file", "not to go")
	e.has("theirs", "the container's")
	e.lacks("..1")
}

func TestMirrorSingleFile(t *testing.T) {
	t.Parallel()
	from := t.TempDir() + "/app.conf"
	e := &engineSide{t: t, to: t.TempDir()}
	put(t, from, "before", 0o644)
	m, err := newMirror(from, "volume")
	if err != nil {
		t.Fatal(err)
	}
	e.update(m)
	e.has("app.conf", "before")
	put(t, from, "afterw", 0o644)
	e.update(m)
	e.has("app.conf", "afterw")
}

// What an archive says stays in the volume.
func TestApplyOutside(t *testing.T) {
	t.Parallel()
	outside, to := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, to+"/way-out"); err != nil {
		t.Fatal(err)
	}
	from := t.TempDir()
	put(t, from+"/way-out/file", "text", 0o644)
	m, err := newMirror(from+"/way-out", "volume")
	if err != nil {
		t.Fatal(err)
	}
	now, err := m.look()
	if err != nil {
		t.Fatal(err)
	}
	now["way-out/file"] = now["file"]
	delete(now, "file")
	m.source = from
	var archive bytes.Buffer
	if err := m.write(&archive, now); err != nil {
		t.Fatal(err)
	}
	if err := applyFiles(&archive, to); err == nil {
		t.Error("a file was made by way of a link that leads out")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
}
