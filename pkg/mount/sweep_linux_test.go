package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A mount whose process is gone is taken away; a folder that is none stays.
func TestSweep(t *testing.T) {
	t.Parallel()
	device, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("making a mount by hand needs root and %s: %v", fuseDevice, err)
	}
	dir := t.TempDir()
	dead, plain := filepath.Join(dir, "files-1"), filepath.Join(dir, "files-2")
	for _, d := range []string{dead, plain} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device.Fd())
	if err := unix.Mount("telepresence", dead, "fuse.telepresence", 0, options); err != nil {
		t.Fatal(err)
	}
	if err := device.Close(); err != nil { // as when the process is killed
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("a dead mount says %v", err)
	}
	for range 2 {
		if err := Sweep(filepath.Join(dir, "files-*")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(dead); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the dead mount's folder: %v", err)
	}
	if _, err := os.Lstat(plain); err != nil {
		t.Errorf("the other folder: %v", err)
	}
}
