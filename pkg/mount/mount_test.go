package mount

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/telepresence/telepresence/test/wait"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReading(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/etc/app.conf", "port=80\n")
	write(t, dir+"/empty", "")
	if err := os.Symlink("etc/app.conf", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 10<<20+123)
	for i := range big {
		big[i] = byte(rand.Uint32())
	}
	write(t, dir+"/big", string(big))
	local := mounted(t, newPod(t), dir, nil)

	if got := read(t, local+"/link"); got != "port=80\n" {
		t.Errorf("through a symlink: %q", got)
	}
	if got := read(t, local+"/empty"); got != "" {
		t.Errorf("an empty file: %q", got)
	}
	if got := sha256.Sum256([]byte(read(t, local+"/big"))); got != sha256.Sum256(big) {
		t.Error("a big file reads differently")
	}
	f, err := os.Open(local + "/big")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := make([]byte, 70_000)
	for _, off := range []int64{9 << 20, 12_345, 5<<20 + 1} {
		if _, err := f.ReadAt(part, off); err != nil || !bytes.Equal(part, big[off:off+int64(len(part))]) {
			t.Errorf("at %d: differs (%v)", off, err)
		}
	}
	if _, err := os.Stat(local + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that isn't there: %v", err)
	}
}

func TestListing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []string
	for i := range 300 {
		name := fmt.Sprintf("f%03d", i)
		write(t, filepath.Join(dir, "d", name), name)
		want = append(want, name)
	}
	local := mounted(t, newPod(t), dir, nil)
	entries, err := os.ReadDir(local + "/d")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Size() != 4 {
			t.Fatalf("%s: %v, %v", e.Name(), info, err)
		}
		if text := read(t, filepath.Join(local, "d", e.Name())); text != e.Name() {
			t.Errorf("%s holds %q", e.Name(), text)
		}
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v", got)
	}
}

func TestChangesFromHere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	local := mounted(t, newPod(t), dir, nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(local+"/d", 0o750))
	must(os.WriteFile(local+"/d/a", []byte("one"), 0o600))
	must(os.Rename(local+"/d/a", local+"/d/b"))
	must(os.Symlink("b", local+"/d/s"))
	must(os.Chmod(local+"/d/b", 0o640))
	must(os.Truncate(local+"/d/b", 2))
	when := time.Unix(1_600_000_000, 0)
	must(os.Chtimes(local+"/d/b", when, when))
	f, err := os.OpenFile(local+"/d/b", os.O_RDWR|os.O_APPEND, 0)
	must(err)
	_, err = f.WriteString("XYZ")
	must(err)
	must(f.Sync())
	must(os.Link(local+"/d/b", local+"/d/hard"))
	must(os.Remove(local + "/d/hard"))
	must(f.Close())

	if got := read(t, dir+"/d/s"); got != "onXYZ" {
		t.Errorf("in the pod: %q", got)
	}
	if got := read(t, local+"/d/b"); got != "onXYZ" {
		t.Errorf("here: %q", got)
	}
	for path, want := range map[string]fs.FileMode{"/d": fs.ModeDir | 0o750, "/d/b": 0o640} {
		for _, side := range []string{dir, local} {
			if info, err := os.Stat(side + path); err != nil || info.Mode() != want {
				t.Errorf("%s: %v, %v", side+path, info.Mode(), err)
			}
		}
	}
	must(os.RemoveAll(local + "/d"))
	if _, err := os.Stat(dir + "/d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still in the pod: %v", err)
	}
}

func TestWritingALot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	local := mounted(t, newPod(t), dir, nil)
	want := make([]byte, 9<<20+77)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	f, err := os.Create(local + "/f")
	if err != nil {
		t.Fatal(err)
	}
	for rest := want; len(rest) > 0; {
		n := min(len(rest), 4000)
		if _, err := f.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if info, err := f.Stat(); err != nil || info.Size() != int64(len(want)) {
		t.Errorf("while open: %d bytes, %v", info.Size(), err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal([]byte(read(t, dir+"/f")), want) {
		t.Error("differs in the pod")
	}
}

func TestDeletedWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	local := mounted(t, newPod(t), dir, nil)
	f, err := os.Create(local + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(local + "/f"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("still here"); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != 10 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestConfigMap swaps ..data as the kubelet does.
func TestConfigMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	local := mounted(t, newPod(t), dir, nil)
	swap := func(version string) {
		t.Helper()
		write(t, dir+"/.."+version+"/key", "value "+version)
		if err := os.Symlink(".."+version, dir+"/..data_tmp"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"/..data_tmp", dir+"/..data"); err != nil {
			t.Fatal(err)
		}
	}
	swap("1")
	if err := os.Symlink("..data/key", dir+"/key"); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "the first version is there", func() bool {
		data, err := os.ReadFile(local + "/key")
		return err == nil && string(data) == "value 1"
	})
	swap("2")
	if err := os.RemoveAll(dir + "/..1"); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "the second version is there", func() bool {
		data, err := os.ReadFile(local + "/key")
		return err == nil && string(data) == "value 2"
	})
}

// TestSameSecond changes a file within the second of its last change, without
// changing its size.
func TestSameSecond(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	local := mounted(t, newPod(t), dir, nil)
	for i := range 4 {
		want := fmt.Sprintf("version %d", i)
		write(t, dir+"/f", want)
		wait.Until(t, patience, want, func() bool {
			data, err := os.ReadFile(local + "/f")
			return err == nil && string(data) == want
		})
	}
}

func TestErrorsOfThePod(t *testing.T) {
	t.Parallel()
	local := mounted(t, newPod(t), "/", nil)
	if err := os.Mkdir(local+"/proc/sys/x", 0o700); err == nil {
		t.Error("a directory was made in /proc/sys")
	}
	if err := os.Remove(local + "/proc"); err == nil {
		t.Error("/proc was removed")
	}
	if got := read(t, local+"/proc/sys/kernel/ostype"); got != "Linux\n" {
		t.Errorf("a file whose size says 0: %q", got)
	}
}

func TestStall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/f", "x")
	p := newPod(t)
	local := mounted(t, p, dir, func(c *Config) { c.Timeout = 500 * time.Millisecond })
	p.stall()
	if _, err := os.Stat(local + "/other"); !errors.Is(err, syscall.EIO) {
		t.Errorf("while stalled: %v", err)
	}
	p.resume()
	wait.Until(t, patience, "the file can be read again", func() bool {
		data, err := os.ReadFile(local + "/f")
		return err == nil && string(data) == "x"
	})
	if p.sessions() != 1 {
		t.Errorf("%d sessions were opened", p.sessions())
	}
}

// TestStallKilled kills a process that waits for a stalled pod.
func TestStallKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPod(t)
	local := mounted(t, p, dir, func(c *Config) { c.Timeout = time.Hour })
	p.stall()
	cmd := exec.Command("stat", local+"/f")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	wait.Until(t, patience, "the process waits", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", cmd.Process.Pid))
		return err == nil && bytes.Contains(state, []byte("fuse")) || err == nil && string(state) != "0" && len(state) > 0
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended by itself")
	}
}

// TestNotInherited starts a child: one that held the mount's descriptor would
// keep a killed session's mount, and those who wait for it, from ending.
func TestNotInherited(t *testing.T) {
	t.Parallel()
	mounted(t, newPod(t), t.TempDir(), nil)
	out, err := exec.Command("ls", "-l", "/proc/self/fd").CombinedOutput()
	if err != nil {
		t.Skipf("ls: %v: %s", err, out)
	}
	if bytes.Contains(out, []byte("/dev/fuse")) {
		t.Errorf("a child has the mount's descriptor:\n%s", out)
	}
}

func TestBrokenSession(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/f", "x")
	p := newPod(t)
	local := mounted(t, p, dir, nil)
	f, err := os.OpenFile(local+"/f", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.cut()
	wait.Until(t, patience, "the open file can be written", func() bool {
		_, err := f.WriteAt([]byte("y"), 0)
		return err == nil && f.Sync() == nil
	})
	if got := read(t, dir+"/f"); got != "y" {
		t.Errorf("in the pod: %q", got)
	}
}

func TestCloseWhileInUse(t *testing.T) {
	t.Parallel()
	if err := available(); err != nil {
		t.Skipf("can't mount here: %v", err)
	}
	dir := t.TempDir()
	write(t, dir+"/f", "x")
	local := t.TempDir()
	m, err := FUSE(t.Context(), Config{SFTP: newPod(t).open, Root: dir, Mountpoint: local})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(local + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := os.ReadDir(local); err != nil || len(entries) != 0 {
		t.Errorf("after unmounting: %v, %v", entries, err)
	}
}
