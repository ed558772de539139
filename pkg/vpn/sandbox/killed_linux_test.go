package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/test/wait"
)

// machine is what a sandbox must leave as it is: mounts, links, routes, names.
func machine(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, path := range []string{"/proc/self/mountinfo", "/proc/self/net/dev", "/proc/self/net/route", "/proc/self/net/if_inet6", "/etc/resolv.conf", "/etc/hosts"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b)) {
			if strings.HasSuffix(path, "/dev") {
				l, _, _ = strings.Cut(l, ":") // without counters
				l += "\n"
			}
			all.WriteString(l)
		}
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return all.String() + name
}

// driver is this test's binary as a driver of a script.
func driver(moment, script string, args ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{driverRole, moment, "sh", "-c", script, "sh"}, args...)...)
}

func TestSandboxKilledLeavesNothing(t *testing.T) {
	if os.Getenv(inWorld) == "" {
		t.Skip("others may change this machine: TestAloneAsRoot and TestAsOrdinaryUser run it where they can't")
	}
	_ = start(t, Config{}, "true").Close() // or skips
	before := machine(t)
	dir := t.TempDir()

	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	unreleased := driver("started", "sleep 1000")
	unreleased.Stdout = out
	killAt(t, unreleased, false, func() string {
		b, _ := os.ReadFile(out.Name())
		line, complete := strings.CutSuffix(string(b), "\n")
		if !complete {
			return ""
		}
		return strings.TrimPrefix(line, "keeper ")
	})

	pid := filepath.Join(dir, "pid")
	isThere := func() string {
		b, _ := os.ReadFile(pid)
		return strings.TrimSpace(string(b))
	}
	running := driver("run", `(setsid sh -c 'trap "" TERM HUP; while :; do sleep 1; done' &)
		trap "" TERM; echo $$ > "$1.new"; mv "$1.new" "$1"; while :; do sleep 1; done`, pid)
	killAt(t, running, false, isThere)

	// Nobody is left to end the process: that goes by itself.
	if err := os.Remove(pid); err != nil {
		t.Fatal(err)
	}
	alone := driver("run", `trap "" TERM HUP; echo $$ > "$1.new"; mv "$1.new" "$1"; while :; do sleep 1; done`, pid)
	killAt(t, alone, true, isThere)
	if after := machine(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// killAt starts a driver, kills it once a process of its sandbox is known, that
// one's keeper first if it is to be killed too, and waits until its network
// namespace is empty.
func killAt(t *testing.T, d *exec.Cmd, keeperToo bool, inside func() string) {
	t.Helper()
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	var pid string
	wait.Until(t, patience, "something runs in the sandbox", func() bool { pid = inside(); return pid != "" })
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+pid+"/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	if len(processesIn(st.Ino)) == 0 {
		t.Error("nothing is seen in the sandbox")
	}
	if keeperToo {
		if err := unix.Kill(parent(t, pid), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	_ = d.Process.Kill()
	_ = d.Wait()
	wait.Until(t, patience, fmt.Sprintf("nothing runs in network namespace %d", st.Ino), func() bool { return len(processesIn(st.Ino)) == 0 })
}

// parent is the parent of a process.
func parent(t *testing.T, pid string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // behind the name: the state, and the parent
	fields := strings.Fields(rest)
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return ppid
}

func TestSandboxWithoutKeeper(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "a", "b")
	s := start(t, Config{Binds: []Bind{{Source: volume(t, ""), Target: missing}}}, `trap "" TERM HUP; (setsid sh -c 'trap "" TERM HUP; touch child; while :; do sleep 1; done' &)
		while :; do sleep 1; done`)
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "the child runs", func() bool {
		_, err := os.Stat(filepath.Join(s.cfg.Dir, "child"))
		return err == nil
	})
	if err := unix.Kill(s.process.KeeperPID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Wait(); err == nil {
		t.Error("the keeper is not missed")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left := processesIn(s.netns); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(filepath.Dir(missing)); err == nil {
		t.Error("the volume's mountpoint stays on the machine")
	}
}
