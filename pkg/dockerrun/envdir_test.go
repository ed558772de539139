package dockerrun

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// The environment of a session that was killed is taken away, that of one that
// lives is not.
func TestSweepEnvDirs(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	var dirs []*envDir
	for range 2 {
		d, err := makeEnvDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.path, "environment"), []byte("PASSWORD=secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, d)
	}
	killed, lives := dirs[0], dirs[1]
	if err := killed.lock.Close(); err != nil { // as when the process is killed
		t.Fatal(err)
	}
	for range 2 {
		if err := sweepEnvDirs(parent); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(killed.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of the killed: %v", err)
	}
	if _, err := os.ReadFile(filepath.Join(lives.path, "environment")); err != nil {
		t.Errorf("the environment of the one that lives: %v", err)
	}
	if err := lives.remove(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
