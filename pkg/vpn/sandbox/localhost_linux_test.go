package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/test/wait"
)

// serve answers every connection with a line, until the test ends.
func serve(t *testing.T, l net.Listener, line string) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, line)
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
}

// hostPort listens on the machine's localhost.
func hostPort(t *testing.T, line string) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, line)
	return portOf(l.Addr())
}

// freePort is a port on which nothing listens, for now.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return portOf(l.Addr())
}

// ask connects and reads all.
func ask(c net.Conn, err error) string {
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	b, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// server is a script that listens on the port that is its first argument, and
// answers with its second.
const server = `exec python3 -c '
import os, socket, sys
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind((os.environ.get("HOST_TO_BIND", "127.0.0.1"), int(sys.argv[1]))); l.listen()
while True:
    c, _ = l.accept(); c.sendall(sys.argv[2].encode()); c.close()
' "$@"`

// client is a script that tells what a port of localhost answers.
const client = `ask() { python3 -c '
import socket, sys
try: print(socket.create_connection((sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1", int(sys.argv[1])), 30).recv(99).decode())
except OSError as e: print(e.strerror)
' "$@"; }
`

func TestSandboxListenerOnTheMachine(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := start(t, Config{}, server, fmt.Sprint(port), "from inside")
	if s.Listening(port) {
		t.Error("something listens before the process runs")
	}
	if _, err := s.Dial(t.Context(), port); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("got %v, want a refusal", err)
	}
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "the process listens", func() bool { return s.Listening(port) })
	if got := ask(s.Dial(t.Context(), port)); got != "from inside" {
		t.Errorf("Dial: got %q", got)
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	wait.Until(t, patience, "the machine's localhost listens too", func() bool { return ask(net.Dial("tcp", at)) == "from inside" })
	if err := s.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "it does no longer", func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			_ = c.Close()
		}
		return errors.Is(err, unix.ECONNREFUSED)
	})
}

func TestSandboxDialsWhatListensElsewhere(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := start(t, Config{Env: append(os.Environ(), "HOST_TO_BIND=198.18.0.1")}, server, fmt.Sprint(port), "elsewhere")
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "the process listens", func() bool { return s.Listening(port) })
	if got := ask(s.Dial(t.Context(), port)); got != "elsewhere" {
		t.Errorf("got %q", got)
	}
}

// What the machine has is reached until the process listens there itself, and
// again when it no longer does.
func TestSandboxReachesTheMachine(t *testing.T) {
	t.Parallel()
	database, pods, nobodys := hostPort(t, "from the machine"), hostPort(t, "never"), freePort(t)
	got := run(t, Config{PodPorts: []uint16{pods}}, client+`
		while [ "$(ask $1)" != "from the machine" ]; do sleep 0.05; done
		ask $1; ask $2; ask $3
		`+strings.Replace(server, "exec ", "", 1)+` &
		while [ "$(ask $1)" = "from the machine" ]; do sleep 0.05; done
		ask $1; kill $!
		while [ "$(ask $1)" != "from the machine" ]; do sleep 0.05; done
		ask $1`, fmt.Sprint(database), fmt.Sprint(pods), fmt.Sprint(nobodys))
	want := fmt.Sprintf("from the machine\nConnection refused\nConnection refused\n%d\nfrom the machine\n", pods)
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSandboxNeverDialsTheMachine(t *testing.T) {
	t.Parallel()
	port := hostPort(t, "from the machine")
	s := start(t, Config{}, client+`while [ "$(ask $1)" != "from the machine" ]; do sleep 0.05; done; touch seen; exec sleep 1000`, fmt.Sprint(port))
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "the process reaches the machine", func() bool {
		_, err := os.Stat(filepath.Join(s.cfg.Dir, "seen"))
		return err == nil
	})
	if _, err := s.Dial(t.Context(), port); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestSandboxListenInside(t *testing.T) {
	t.Parallel()
	port := hostPort(t, "from the machine") // the pod's port wins over it
	s := start(t, Config{}, client+`[ "$(ask $1 ::1)" = "from the pod" ] && [ "$(ask $1)" = "from the pod" ]`, fmt.Sprint(port))
	l, err := s.ListenInside(port)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, "from the pod")
	if _, err := s.ListenInside(port); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("listening twice: got %v", err)
	}
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	if status, err := s.Wait(); err != nil || status.ExitCode() != 0 {
		t.Error(status, err)
	}
}

func TestSandboxTellsOfATakenPort(t *testing.T) {
	t.Parallel()
	port := hostPort(t, "from the machine")
	told := make(chan string, 10)
	s := start(t, Config{Tell: func(line string) { told <- line }}, server, fmt.Sprint(port), "from inside")
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-told:
		want := fmt.Sprintf("port %d of the process can't be reached at this machine's 127.0.0.1:%d: something else listens there", port, port)
		if line != want {
			t.Errorf("got %q, want %q", line, want)
		}
	case <-time.After(patience):
		t.Error("nothing was told")
	}
}
