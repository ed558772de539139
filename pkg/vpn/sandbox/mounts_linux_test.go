package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/telepresence/telepresence/test/wait"
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

// A volume over the folder where the user's agent listens leaves the agent, and
// nothing of that in the volume afterwards.
func TestSandboxKeepsAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	agent := filepath.Join(dir, "ssh-x", "agent.1")
	if err := os.Mkdir(filepath.Dir(agent), 0o700); err != nil {
		t.Fatal(err)
	}
	answering(t, agent)
	pods := volume(t, "the pod's\n")
	got := run(t, Config{
		Binds: []Bind{{Source: pods, Target: dir}},
		Env:   append(os.Environ(), "SSH_AUTH_SOCK="+agent),
	}, "cat $1/key; "+askSocket+"; ls $1", dir, agent)
	if want := "the pod's\nanswered\nkey\nssh-x\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	wait.Until(t, patience, "the volume is as before", func() bool {
		left, err := os.ReadDir(pods)
		return err == nil && len(left) == 1
	})
	if _, err := os.Stat(agent); err != nil {
		t.Error("the user's agent is gone:", err)
	}
}

// askSocket says how the last argument, a socket, answers.
const askSocket = `for socket in "$@"; do :; done; python3 -c 'import socket, sys
try:
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    print(s.recv(99).decode())
except OSError as e:
    print(e.strerror)' "$socket"`

// answering listens on a socket until the test ends.
func answering(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { greet(l) })
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
}

// greet says one word to whoever connects.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("answered"))
		_ = c.Close()
	}
}

// No daemon of the machine answers for names in the sandbox.
func TestSandboxHidesNames(t *testing.T) {
	t.Parallel()
	if os.Getenv(inWorld) == "" {
		t.Skip("only a world of its own has these daemons")
	}
	for _, socket := range machinesNames {
		if _, err := net.Dial("unix", socket); err != nil {
			t.Errorf("on the machine: %v", err)
		}
		if got := run(t, Config{}, askSocket, socket); strings.Contains(got, "answered") {
			t.Errorf("%s answers in the sandbox", socket)
		}
	}
}

// What can't be put in place is named.
func TestSandboxNamesMissing(t *testing.T) {
	t.Parallel()
	_ = start(t, Config{}, "true").Close() // or skips
	const missing = "/nonexistent/telepresence"
	_, err := Start(t.Context(), Config{
		Command: []string{"true"}, Dir: "/", Binds: []Bind{{Source: missing, Target: "/srv"}},
	})
	if err == nil || !strings.Contains(err.Error(), missing) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the error is %v", err)
	}
}
