package session

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPodEnviron(t *testing.T) {
	t.Parallel()
	got := podEnviron(
		[]string{"PATH=/agent", "HOSTNAME=proxy", "POD=proxy", "A=1", "MULTI=a\nb=c"},
		[]string{"PATH=/image", "HOME=/root", "POD=original", "IMAGE=yes", "=odd", "odd"},
	)
	want := map[string]string{"POD": "proxy", "A": "1", "MULTI": "a\nb=c", "IMAGE": "yes"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOver(t *testing.T) {
	t.Parallel()
	got := over([]string{"PATH=/bin", "A=old", "A=older", "B=2"}, map[string]string{"A": "new", "Z": "1", "C": "3"})
	want := []string{"PATH=/bin", "A=new", "B=2", "C=3", "Z=1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestEnvJSONText(t *testing.T) {
	t.Parallel()
	text, err := envJSONText(map[string]string{"B": "x\ny", "A": "é"})
	if want := "{\n  \"A\": \"é\",\n  \"B\": \"x\\ny\"\n}\n"; err != nil || string(text) != want {
		t.Errorf("text is %q, %v, want %q", text, err, want)
	}
}

func TestEnvFileText(t *testing.T) {
	t.Parallel()
	text, unfit := envFileText(map[string]string{"B": "x=y z", "A": "", "MULTI": "a\nb", "#C": "1"})
	if got, want := string(text), "A=\nB=x=y z\n"; got != want {
		t.Errorf("text is %q, want %q", got, want)
	}
	if want := []string{"#C", "MULTI"}; !slices.Equal(unfit, want) {
		t.Errorf("unfit are %v, want %v", unfit, want)
	}
}

func TestWritePrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, []byte("a longer text that was there"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := canWrite(path); err != nil {
		t.Fatal(err)
	}
	if err := writePrivate(path, []byte("A=1\n")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "A=1\n" {
		t.Errorf("read %q, %v", text, err)
	}
	if at, err := os.Stat(path); err != nil || at.Mode() != 0o600 {
		t.Errorf("mode %v, %v", at.Mode(), err)
	}
}

func TestCanWriteLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := canWrite(filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	if err := canWrite(dir); err == nil {
		t.Error("a directory was taken for a file")
	}
	if err := canWrite(filepath.Join(dir, "missing", "file")); err == nil {
		t.Error("a missing directory was not noticed")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
