package session

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFindProgram checks what is refused before a session begins, and in which
// words; and that what the pod may have isn't.
func TestFindProgram(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	for name, mode := range map[string]os.FileMode{"run": 0o755, "notes": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	path := other + ":" + dir
	for _, tt := range []struct {
		name, path string
		foreign    []string
		want       string // empty: it is let through
	}{
		{"run", path, nil, ""},
		{filepath.Join(dir, "run"), "", nil, ""},
		{"absent", path, nil, "--run absent: there is no such program in any folder of PATH"},
		{"run", other, nil, "--run run: there is no such program in any folder of PATH"},
		{"run", "", nil, "--run run: there is no such program in any folder of PATH"},
		{"notes", path, nil, "--run notes: permission denied"},
		{"./absent", path, nil, "--run ./absent: no such file or directory"},
		{"./testdata-absent/x", path, nil, "--run ./testdata-absent/x: no such file or directory"},
		{dir + "/notes", path, nil, "--run " + dir + "/notes: permission denied"},
		{dir, path, nil, "--run " + dir + ": is a directory"},
		{"/data/bin/tool", path, []string{"", "/data"}, ""},
		{"/data", path, []string{"/data/"}, "--run /data: no such file or directory"},
		{"/database/tool", path, []string{"/data"}, "--run /database/tool: no such file or directory"},
		{"/any/tool", path, []string{"/"}, ""},
		{"tool", path + ":/data/bin", []string{"/data"}, ""},
	} {
		got := ""
		if err := findProgram(tt.name, tt.path, tt.foreign); err != nil {
			got = err.Error()
			if _, usage := err.(interface{ Usage() }); !usage {
				t.Errorf("%s is no fault of the command line's", tt.name)
			}
		}
		if got != tt.want {
			t.Errorf("%s in %s: %q, want %q", tt.name, tt.path, got, tt.want)
		}
	}
}
