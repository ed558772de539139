//go:build unix

package process

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/telepresence/telepresence/test/wait"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		script string
		want   int
		words  string
	}{
		{"exit 0", 0, "exit code 0"},
		{"exit 3", 3, "exit code 3"},
		{"exit 255", 255, "exit code 255"},
		{"kill -9 $$", 137, "killed: killed"},
		{"kill -TERM $$", 143, "killed: terminated"},
		{"kill -INT $$", 130, "killed: interrupt"},
	} {
		t.Run(c.script, func(t *testing.T) {
			t.Parallel()
			status, err := run(t, Config{}, c.script).Wait()
			if err != nil || status.ExitCode() != c.want || status.String() != c.words {
				t.Errorf("got %v (%d), %v; want %s (%d)", status, status.ExitCode(), err, c.words, c.want)
			}
		})
	}
}

func TestSurroundings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in, err := os.Open("process_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, text := output(t)
	p := run(t, Config{
		Env: []string{"PATH=" + os.Getenv("PATH"), "A=with space", "B=\xff\xfe"}, Dir: dir,
		Stdin: in, Stdout: out, Stderr: out,
	}, `pwd; printf '%s|%s|%s\n' "$A" "$B" "$1"; head -n 1; echo err >&2; ls -l /proc/self/fd | grep -c socket:`, "arg")
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(text(), "\n")
	if len(got) < 5 || got[0] != dir || got[1] != "with space|\xff\xfe|arg" || got[2] != "//go:build unix" || got[3] != "err" || got[4] != "0" {
		t.Errorf("got %q", got)
	}
}

func TestCannotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		command []string
		dir     string
		want    string
	}{
		"not in PATH":    {[]string{"no-such-program"}, dir, `starting "no-such-program": looking it up: executable file not found in $PATH`},
		"no such file":   {[]string{"/no/such/file"}, dir, `starting "/no/such/file": looking it up: no such file or directory`},
		"not executable": {[]string{plain}, dir, `looking it up: permission denied`},
		"no directory":   {[]string{"true"}, "/no/such/dir", `starting "true": changing to /no/such/dir: no such file or directory`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Start(t.Context(), Config{Command: c.command, Env: os.Environ(), Dir: c.dir})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.Close() }()
			if err := p.Release(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if _, err := p.Wait(); err == nil {
				t.Error("Wait knows no error")
			}
		})
	}
}

func TestScriptWithoutInterpreter(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("exit $1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := Start(t.Context(), Config{Command: []string{script, "7"}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); err != nil || status.ExitCode() != 7 {
		t.Errorf("got %v, %v", status, err)
	}
}

func TestChildrenEndWithProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := run(t, Config{}, `cd "$1"
		sleep 1000 & echo $! > plain
		setsid sh -c 'echo $$ > session; exec sleep 1000' &
		(trap "" TERM HUP; echo $(exec sh -c 'echo $PPID') > stubborn; while :; do sleep 1; done) &
		(sh -c 'echo $$ > orphan; exec sleep 1000' &)
		while ! [ -s session -a -s stubborn -a -s orphan ]; do sleep 0.01; done
		exit 4`, dir)
	if status, err := p.Wait(); err != nil || status.ExitCode() != 4 {
		t.Fatal(status, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plain", "session", "stubborn", "orphan"} {
		if pid := pidFile(t, filepath.Join(dir, name)); alive(pid) {
			t.Errorf("%s still runs", name)
		}
	}
}

func TestSignalReachesGroup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := run(t, Config{}, `cd "$1"; trap 'wait; exit 9' USR1
		(trap 'echo got > child; exit' USR1; echo $$ > ready; while :; do sleep 0.05; done) &
		wait`, dir)
	pidFile(t, filepath.Join(dir, "ready"))
	if err := p.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); err != nil || status.ExitCode() != 9 {
		t.Fatal(status, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "child")); string(b) != "got\n" {
		t.Errorf("the child got no signal: %q, %v", b, err)
	}
}

func TestCloseAsksFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := run(t, Config{Grace: patience}, `cd "$1"; trap 'echo bye > last; exit 5' TERM; echo $$ > ready; while :; do sleep 0.05; done`, dir)
	pidFile(t, filepath.Join(dir, "ready"))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); err != nil || status.ExitCode() != 5 {
		t.Error(status, err)
	}
	if err := p.Close(); err != nil {
		t.Error("second Close:", err)
	}
}

func TestCloseKills(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := run(t, Config{Grace: time.Millisecond}, `cd "$1"; trap '' TERM HUP; echo $$ > ready; while :; do sleep 0.05; done`, dir)
	pidFile(t, filepath.Join(dir, "ready"))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); err != nil || status.Signal != syscall.SIGKILL {
		t.Error(status, err)
	}
}

func TestCloseUnreleased(t *testing.T) {
	t.Parallel()
	p, err := Start(t.Context(), Config{Command: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err == nil {
		t.Error("an unreleased process ended without an error")
	}
	if err := p.Release(); err == nil {
		t.Error("a closed process was released")
	}
}

func TestNothingOutlivesUs(t *testing.T) {
	t.Parallel()
	t.Run("before the release", func(t *testing.T) {
		t.Parallel()
		out, text := output(t)
		d := driver("start", "sleep", "1000")
		d.Stdout = out
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, patience, "the keeper runs", func() bool { return strings.HasSuffix(text(), "\n") })
		keeper := strings.TrimSpace(strings.TrimPrefix(text(), "keeper "))
		_ = d.Process.Kill()
		_ = d.Wait()
		wait.Until(t, patience, "the keeper is gone", func() bool {
			_, err := os.Stat("/proc/" + keeper)
			return err != nil
		})
	})
	t.Run("while the process runs", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		d := driver("run", "sh", "-c", `cd "$1"
			setsid sh -c 'trap "" TERM HUP; echo $$ > child; while :; do sleep 1; done' &
			trap "" TERM HUP; echo $$ > process; while :; do sleep 1; done`, "sh", dir)
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
		process, child := pidFile(t, filepath.Join(dir, "process")), pidFile(t, filepath.Join(dir, "child"))
		_ = d.Process.Kill()
		_ = d.Wait()
		wait.Until(t, patience, "process and child are gone", func() bool { return !alive(process) && !alive(child) })
	})
}

func TestLosingTheKeeper(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := run(t, Config{}, `echo $$ > "$1/ready"; exec sleep 1000`, dir)
	pid := pidFile(t, filepath.Join(dir, "ready"))
	if err := syscall.Kill(p.KeeperPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err == nil || !strings.Contains(err.Error(), "keeper of the process was lost") {
		t.Error("got", err)
	}
	wait.Until(t, patience, "the process is gone", func() bool { return !alive(pid) })
}
