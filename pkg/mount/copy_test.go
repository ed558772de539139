package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/telepresence/telepresence/test/wait"
)

func copying(t *testing.T, p *pod, change func(*CopyConfig), volumes ...string) (*Copier, string) {
	t.Helper()
	cfg := CopyConfig{SFTP: p.open, Volumes: volumes, Target: t.TempDir(), Interval: 20 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	c, err := Copy(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(cfg.Target); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	return c, cfg.Target
}

func TestCopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	vol := dir + "/data"
	write(t, vol+"/a", "one")
	write(t, vol+"/sub/deep/b", string(make([]byte, 3<<20)))
	write(t, dir+"/single", "a file by itself")
	if err := os.Chmod(vol+"/a", 0o640); err != nil {
		t.Fatal(err)
	}
	c, target := copying(t, newPod(t), nil, vol, dir+"/single")
	local := filepath.Join(target, vol)

	if info, err := os.Stat(local + "/a"); err != nil || info.Mode() != 0o640 || read(t, local+"/a") != "one" {
		t.Errorf("a: %v, %v", info, err)
	}
	if got := len(read(t, local+"/sub/deep/b")); got != 3<<20 {
		t.Errorf("b has %d bytes", got)
	}
	if got := read(t, filepath.Join(target, dir, "single")); got != "a file by itself" {
		t.Errorf("single: %q", got)
	}
	if len(c.Skipped()) != 0 {
		t.Errorf("skipped %v", c.Skipped())
	}

	write(t, vol+"/a", "two") // within the same second, of the same size
	write(t, vol+"/new/c", "new")
	if err := os.RemoveAll(vol + "/sub"); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "the changes are here", func() bool {
		a, errA := os.ReadFile(local + "/a")
		n, errN := os.ReadFile(local + "/new/c")
		_, errSub := os.Stat(local + "/sub")
		return errA == nil && string(a) == "two" && errN == nil && string(n) == "new" && errors.Is(errSub, fs.ErrNotExist)
	})

	if err := errors.Join(os.RemoveAll(vol+"/new"), os.WriteFile(vol+"/new", []byte("now a file"), 0o600)); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "a directory became a file", func() bool {
		data, err := os.ReadFile(local + "/new")
		return err == nil && string(data) == "now a file"
	})
}

// TestCopyConfigMap reads through ..data all the while the kubelet swaps it.
func TestCopyConfigMap(t *testing.T) {
	t.Parallel()
	vol := t.TempDir()
	swap := func(version string) {
		t.Helper()
		write(t, vol+"/.."+version+"/key", "value "+version)
		if err := errors.Join(os.Symlink(".."+version, vol+"/..tmp"), os.Rename(vol+"/..tmp", vol+"/..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap("1")
	if err := os.Symlink("..data/key", vol+"/key"); err != nil {
		t.Fatal(err)
	}
	_, target := copying(t, newPod(t), nil, vol)
	local := filepath.Join(target, vol)
	swap("2")
	if err := os.RemoveAll(vol + "/..1"); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "the second version is here", func() bool {
		return read(t, local+"/key") == "value 2" // never missing
	})
	wait.Until(t, patience, "the first version is gone", func() bool {
		_, err := os.Stat(local + "/..1")
		return errors.Is(err, fs.ErrNotExist)
	})
}

func TestCopyLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/big/f", "more than ten bytes")
	write(t, dir+"/small/f", "less")
	c, target := copying(t, newPod(t), func(c *CopyConfig) { c.Limit = 10 }, dir+"/big", dir+"/small")
	if got := c.Skipped(); len(got) != 1 || got[0] != dir+"/big" {
		t.Errorf("skipped %v", got)
	}
	if got, err := os.ReadDir(filepath.Join(target, dir, "big")); err != nil || len(got) != 0 {
		t.Errorf("of the big one: %v, %v", got, err)
	}
	if got := read(t, filepath.Join(target, dir, "small", "f")); got != "less" {
		t.Errorf("of the small one: %q", got)
	}
}

func TestCopyBrokenSession(t *testing.T) {
	t.Parallel()
	vol := t.TempDir()
	write(t, vol+"/f", "before")
	p := newPod(t)
	_, target := copying(t, p, nil, vol)
	p.cut()
	write(t, vol+"/f", "afterwards")
	wait.Until(t, patience, "the change is here", func() bool { return read(t, filepath.Join(target, vol, "f")) == "afterwards" })
}

func TestCopyThen(t *testing.T) {
	t.Parallel()
	vol := t.TempDir()
	write(t, vol+"/f", "before")
	c, target := copying(t, newPod(t), nil, vol)
	var last atomic.Value
	refused := errors.New("refused")
	if err := c.Then(t.Context(), func(context.Context) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("Then returns %v", err)
	}
	err := c.Then(t.Context(), func(context.Context) error {
		last.Store(read(t, filepath.Join(target, vol, "f")))
		return nil
	})
	if err != nil || last.Load() != "before" {
		t.Errorf("Then saw %v, and returns %v", last.Load(), err)
	}
	write(t, vol+"/f", "afterwards")
	wait.Until(t, patience, "the change is handed on", func() bool { return last.Load() == "afterwards" })
}
