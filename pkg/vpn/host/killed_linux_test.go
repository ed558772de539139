package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/test/wait"
)

// Whoever of a session is killed, after whichever step of the helper's: the
// machine's routes, names and namespaces are as they were, and nothing runs on.
func TestKilledAtEachStep(t *testing.T) {
	if !alone(t) {
		return
	}
	before := state(t)
	victims := map[string][]string{
		"client":            {driverRole},
		"helper":            {"/socket"},
		"guard":             {guarding},
		"client and helper": {driverRole, "/socket"},
		// Nobody is left to undo anything: the next session does it first.
		"all": {guarding, driverRole, "/socket"},
	}
	for _, step := range []string{"device", "addresses", "pins", "routes", "names", "handed over", "2 to undo", "1 to undo", "0 to undo"} {
		for victim, words := range victims {
			if !t.Run(victim+" at "+step, func(t *testing.T) { killAt(t, step, words, before) }) {
				return // what it left would be the others' fault
			}
		}
	}
}

func killAt(t *testing.T, step string, words []string, before string) {
	t.Helper()
	dir := t.TempDir()
	session := exec.Command("/proc/self/exe", driverRole)
	session.Env = append(os.Environ(), stopAt+"="+step, stopDir+"="+dir)
	var said bytes.Buffer
	session.Stderr = &said
	in, err := session.StdinPipe()
	if err == nil {
		err = session.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	undoing := strings.HasSuffix(step, "to undo")
	if undoing {
		_ = in.Close()
	}
	wait.Until(t, patience, "the helper is at "+step, func() bool {
		_, err := os.Stat(filepath.Join(dir, "there"))
		return err == nil
	})
	if !undoing && state(t) == before {
		t.Error("the step changes nothing")
	}
	for _, word := range words {
		kill(t, word)
	}
	write(t, filepath.Join(dir, "on"), "", 0o600) // the others go on
	_ = in.Close()
	_ = session.Wait()
	wait.Until(t, patience, "nothing runs on", func() bool { return len(processes(t)) == 1 })
	if len(words) == 3 {
		next := exec.Command("/proc/self/exe", driverRole)
		if out, err := next.CombinedOutput(); err != nil {
			t.Fatalf("the next session: %v\n%s", err, out)
		}
	}
	sameState(t, before)
	if t.Failed() {
		t.Logf("it said: %s", &said)
	}
}

// kill kills the process that has a word among its arguments, if it hasn't ended.
func kill(t *testing.T, word string) {
	t.Helper()
	killIf(t, func(args string) bool { return strings.Contains(args, word+" ") })
}

// killIf kills processes by their arguments, each with a space behind it.
func killIf(t *testing.T, chosen func(args string) bool) {
	t.Helper()
	for pid, args := range processes(t) {
		if !chosen(args) {
			continue
		}
		n, err := strconv.Atoi(pid)
		if err == nil {
			err = unix.Kill(n, unix.SIGKILL)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
		wait.Until(t, patience, fmt.Sprintf("process %s is gone", pid), func() bool { return processes(t)[pid] == "" })
	}
}

// The session of a killed helper hears of it at once, and its end is no error.
func TestLost(t *testing.T) {
	if !alone(t) {
		return
	}
	before := state(t)
	h, err := Start(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	kill(t, "/socket")
	select {
	case <-h.Lost():
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed")
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	wait.Until(t, patience, "nothing runs on", func() bool { return len(processes(t)) == 1 })
	sameState(t, before)
}

// A second session doesn't take the names of one that lives.
func TestAnotherSession(t *testing.T) {
	if !alone(t) {
		return
	}
	h, err := Start(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	before := read(t, resolvConf) + read(t, resolvConf+aside)
	other := cluster
	other.Routes = prefixes("100.64.0.0/16")
	_, err = Start(t.Context(), other)
	if err == nil || !strings.Contains(err.Error(), "another session, whose device is telepresence0") {
		t.Errorf("the second session: %v", err)
	}
	if after := read(t, resolvConf) + read(t, resolvConf+aside); after != before {
		t.Errorf("before the other:\n%s\nafter:\n%s", before, after)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}
