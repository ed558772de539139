package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// volume is a folder with a file "key" in it.
func volume(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Volumes lie at their true paths, whether the machine has them or not and
// whether the user could make them or not; and nothing of the machine is hidden.
func TestSandboxVolumes(t *testing.T) {
	t.Parallel()
	there := volume(t, "the machine's\n") // what the machine has at the place of a volume
	missing := filepath.Join(t.TempDir(), "a", "b")
	name := fmt.Sprintf("telepresence-test-%d", os.Getpid())
	got := run(t, Config{Binds: []Bind{
		{Source: volume(t, "there\n"), Target: there, ReadOnly: true},
		{Source: volume(t, "missing\n"), Target: missing},
		{Source: volume(t, "run\n"), Target: "/var/run/" + name + "/serviceaccount"},
		{Source: volume(t, "run2\n"), Target: "/var/run/" + name + "/other"},
		{Source: volume(t, "root\n"), Target: "/" + name + "/deep/down"},
		{Source: volume(t, "usr\n"), Target: "/usr/lib/" + name},
		{Source: filepath.Join(volume(t, "single\n"), "key"), Target: "/etc/" + name + "/app.conf"},
	}}, `cat $1/key $2/key /run/$3/serviceaccount/key /var/run/$3/other/key /$3/deep/down/key /usr/lib/$3/key /etc/$3/app.conf
		(echo new > $1/new) 2>/dev/null || echo read-only
		echo new > $2/new && cat $2/new
		ls -A / | grep -vx $3 | sort | tr '\n' ' '; echo; ls -A /etc | grep -vx $3 | sort | tr '\n' ' '; echo
		echo > mine && id -un >/dev/null && python3 -c 'import json' && stat -c %F /dev/null; cd / && pwd`, there, missing, name)
	l := lines(got)
	want := []string{"there", "missing", "run", "run2", "root", "usr", "single", "read-only", "new", names(t, "/", name), names(t, "/etc", name), "character special file", "/"}
	if strings.Join(l, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	for _, place := range []string{missing, filepath.Dir(missing), "/run/" + name, "/" + name, "/usr/lib/" + name, "/etc/" + name} {
		if _, err := os.Stat(place); err == nil {
			t.Errorf("%s stays", place)
		}
	}
}

// names are the entries of a folder but one, as ls and sort show them.
func names(t *testing.T, dir, but string) string {
	t.Helper()
	return strings.TrimSuffix(run(t, Config{}, `ls -A $1 | grep -vx $2 | sort | tr '\n' ' '; echo`, dir, but), "\n")
}
