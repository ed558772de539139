package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// sshServer runs the agent's SSH on a TCP port of its own, without the stream under it, which OpenSSH doesn't know. It
// returns the arguments by which OpenSSH's client gets there.
func sshServer(t *testing.T) []string {
	t.Helper()
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := keys.serverConfig()
	if err != nil {
		t.Fatal(err)
	}
	l, addr := podListener(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				sv := newServer(ServerConfig{Drain: time.Millisecond})
				_ = sv.newSession().serve(ctx, conn, cfg)
			})
		}
	})
	t.Cleanup(func() {
		cancel(errors.New("the test is over"))
		_ = l.Close()
		wg.Wait()
	})
	dir := t.TempDir()
	known := "[127.0.0.1]:" + portString(addr.Port()) + " " + string(keys.HostPublic)
	for name, text := range map[string]string{"id": string(keys.ClientKey), "known": known} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{
		"-F", "none", "-i", filepath.Join(dir, "id"), "-o", "Port=" + portString(addr.Port()),
		"-o", "UserKnownHostsFile=" + filepath.Join(dir, "known"), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
	}
}

func portString(port uint16) string {
	_, p, _ := strings.Cut(loopback(port).String(), ":")
	return p
}

// openSSH runs a program of OpenSSH, or skips the test where there is none.
func openSSH(t *testing.T, program string, stdin io.Reader, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skip("no OpenSSH here: ", err)
	}
	cmd := exec.CommandContext(testContext(t), path, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func TestOpenSSHForward(t *testing.T) {
	t.Parallel()
	args := sshServer(t)
	l, addr := podListener(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		text, err := io.ReadAll(conn)
		if err != nil {
			t.Error(err)
		}
		_, _ = conn.Write(bytes.ToUpper(text))
	})
	stdout, stderr, err := openSSH(t, "ssh", strings.NewReader("hello"), append(args, "-W", addr.String(), "telepresence@127.0.0.1")...)
	if stdout != "HELLO" || err != nil {
		t.Errorf("ssh -W: %q, %v, %s", stdout, err, stderr)
		_ = l.Close()
	}
	wg.Wait()
	_ = l.Close()
	_, stderr, err = openSSH(t, "ssh", nil, append(args, "-W", addr.String(), "telepresence@127.0.0.1")...)
	if err == nil || !strings.Contains(stderr, "ECONNREFUSED") {
		t.Errorf("ssh -W to a closed port: %v, %s", err, stderr)
	}
}

func TestOpenSSHFiles(t *testing.T) {
	t.Parallel()
	args := sshServer(t)
	dir := t.TempDir()
	want := strings.Repeat("some text\n", 100_000)
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	batch := "get " + filepath.Join(dir, "there") + " " + filepath.Join(dir, "here") + "\n"
	_, stderr, err := openSSH(t, "sftp", strings.NewReader(batch), append(args, "-b", "-", "telepresence@127.0.0.1")...)
	if err != nil {
		t.Fatalf("sftp: %v, %s", err, stderr)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "here")); err != nil || string(got) != want {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// TestOpenSSHOtherKey shows that only the session's client gets in.
func TestOpenSSHOtherKey(t *testing.T) {
	t.Parallel()
	args := sshServer(t)
	other, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	for i, arg := range args {
		if filepath.Base(arg) == "id" {
			args[i] = filepath.Join(t.TempDir(), "id")
			if err := os.WriteFile(args[i], other.ClientKey, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, stderr, err := openSSH(t, "ssh", nil, append(args, "-W", "127.0.0.1:1", "telepresence@127.0.0.1")...)
	if err == nil || !strings.Contains(stderr, "Permission denied") {
		t.Errorf("ssh with another key: %v, %s", err, stderr)
	}
}
