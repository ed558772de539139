package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/telepresence/telepresence/pkg/k8s/undo"
	"github.com/telepresence/telepresence/pkg/proxy"
)

// TestMain is the agent itself when a test says so in the environment.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_AS_AGENT") != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// command is the agent as a process.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "TEST_AS_AGENT=1", "GREETING=hello\nworld")
	return cmd
}

// freePort is a port that nobody listens on, and that the kernel gives to nobody of itself.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20_000 + rand.IntN(12_000))
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// served is a running "serve".
type served struct {
	cmd  *exec.Cmd
	log  bytes.Buffer
	port string
	keys proxy.Keys
}

// startServe runs "serve" with keys of its own.
func startServe(t *testing.T, args ...string) *served {
	t.Helper()
	return startServeIn(t, t.TempDir(), args...)
}

// startServeIn is startServe with the keys in dir, beside what is there.
func startServeIn(t *testing.T, dir string, args ...string) *served {
	t.Helper()
	s := &served{port: freePort(t)}
	var err error
	if s.keys, err = proxy.NewKeys(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"host_key": s.keys.HostKey, "client.pub": s.keys.ClientPublic, "token": append(s.keys.Token, '\n')} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.cmd = command(t, append([]string{"serve", "--port", s.port, "--keys", dir}, args...)...)
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// connect connects to the agent as soon as it listens.
func (s *served) connect(t *testing.T) *proxy.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		c, err := proxy.Connect(ctx, proxy.ClientConfig{Keys: s.keys, Dial: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", s.port))
		}})
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("%v\n%s", err, s.log.String())
		}
	}
}

// wait waits for the agent's end, and checks that it told no secret.
func (s *served) wait(t *testing.T) {
	t.Helper()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("serve: %v\n%s", err, s.log.String())
	}
	for _, secret := range [][]byte{s.keys.Token, s.keys.HostKey} {
		if bytes.Contains(s.log.Bytes(), bytes.TrimSpace(secret)) {
			t.Errorf("a secret is in the log:\n%s", s.log.String())
		}
	}
}

func TestServeUntilGoodbye(t *testing.T) {
	t.Parallel()
	s := startServe(t)
	c := s.connect(t)
	ctx := t.Context()
	if out, err := command(t, "ready", "--port="+s.port).CombinedOutput(); err == nil || !strings.Contains(string(out), "not ready") {
		t.Errorf("ready before SetReady: %v, %s", err, out)
	}
	if err := c.SetReady(ctx, true); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, "ready", "--port="+s.port).CombinedOutput(); err != nil {
		t.Errorf("ready: %v, %s", err, out)
	}
	info, err := c.PodInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(info.Environ, "GREETING=hello\nworld") || info.Version != version {
		t.Errorf("pod info: %+v", info)
	}
	if err := c.Goodbye(ctx); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
}

func TestServeWithoutClient(t *testing.T) {
	t.Parallel()
	s := startServe(t, "--grace=200ms")
	s.wait(t)
	if !strings.Contains(s.log.String(), "there is no undo record") {
		t.Errorf("the log does not say what was done:\n%s", s.log.String())
	}
}

// TestServeMayNotRestore has a record, and no right to carry it out: the usual case, and no failure.
func TestServeMayNotRestore(t *testing.T) {
	t.Parallel()
	record := undo.Record{
		Version: undo.Version, Session: "0123abcd", Owner: "ann@laptop", Workload: "deployment/web", Created: time.Unix(0, 0),
		Restore: []undo.Request{{Method: http.MethodPatch, Path: "/apis/apps/v1/namespaces/x/deployments/web", What: "scaling back"}},
	}
	text, err := record.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "undo.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServeIn(t, dir, "--grace=200ms")
	s.wait(t)
	if !strings.Contains(s.log.String(), `msg="not restored" workload=deployment/web`) {
		t.Errorf("the log does not say what was done:\n%s", s.log.String())
	}
}

func TestServeTerminated(t *testing.T) {
	t.Parallel()
	s := startServe(t)
	c := s.connect(t)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || !strings.Contains(err.Error(), errTerminated.Error()) {
		t.Errorf("Wait: %v, want that %v", err, errTerminated)
	}
	if err := c.Goodbye(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
}

func TestStanding(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	cmd := command(t, "serve", "--standing", "--port", port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &served{port: port}
	var err error
	if s.keys, err = proxy.NewKeys(); err != nil {
		t.Fatal(err)
	}
	for {
		enroll := command(t, "enroll", "--port", port)
		enroll.Stdin = bytes.NewReader(proxy.EnrollMessage(s.keys, "ann@laptop"))
		out, err := enroll.CombinedOutput()
		if err == nil {
			break
		}
		if !strings.Contains(string(out), "connect") {
			t.Fatalf("enroll: %v, %s", err, out)
		}
	}
	if err := s.connect(t).Goodbye(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestInstallAndEnviron(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	installed := filepath.Join(dir, "agent")
	if out, err := command(t, "install", installed).CombinedOutput(); err != nil {
		t.Fatalf("install: %v, %s", err, out)
	}
	saved := filepath.Join(dir, "environ")
	cmd := exec.Command(installed, "environ", "--save", saved)
	cmd.Env = []string{"TEST_AS_AGENT=1", "A=1", "B=two\nlines"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("environ: %v, %s", err, out)
	}
	text, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if want := []string{"TEST_AS_AGENT=1", "A=1", "B=two\nlines"}; !slices.Equal(got, want) {
		t.Errorf("environ saved %q, want %q", got, want)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{}, {"nonsense"}, {"serve", "--port=0"}, {"serve", "--port=65536"}, {"serve", "--port=80", "more"},
		{"ready", "--port=x"}, {"enroll", "--nonsense"}, {"install"}, {"environ"},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), args, strings.NewReader(""), io.Discard, &stderr); code != exitUsage {
			t.Errorf("%q: exit code %d, want %d: %s", args, code, exitUsage, stderr.String())
		}
	}
	var stdout bytes.Buffer
	if code := run(t.Context(), []string{"version"}, nil, &stdout, io.Discard); code != exitOK || stdout.String() != version+"\n" {
		t.Errorf("version: %d, %q", code, stdout.String())
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file, text string
		want       int64
	}{
		{"memory.max", "16777216\n", 16 << 20},
		{"memory.max", "max\n", math.MaxInt64},
		{"memory/memory.limit_in_bytes", "33554432\n", 32 << 20},
		{"unrelated", "1", math.MaxInt64},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, tt.file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := memoryLimit(dir); got != tt.want {
			t.Errorf("%s %q: %d, want %d", tt.file, tt.text, got, tt.want)
		}
	}
	if got := bufferSize(16 << 20); got > 1<<20 {
		t.Errorf("%d bytes of buffer under a limit of 16 MiB", got)
	}
}
