package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/proxy"
)

// TestVersions lets a session read what an agent of another version tells, and
// checks that it says so once, and nothing where they are the same.
func TestVersions(t *testing.T) {
	t.Parallel()
	const image = "docker.io/telepresence/telepresence-agent:2.1"
	for _, tt := range []struct {
		operation plan.Operation
		client    string
		want      string
	}{
		{plan.Swap, "1.9", ""},
		{plan.Standing, "2.1", "the agent in proxy pod web-1 is version 1.9, this telepresence is version 2.1: let that pod run image " + image},
		{plan.Swap, "2.1", "the agent in proxy pod web-1 is version 1.9, this telepresence is version 2.1: TELEPRESENCE_VERSION should name this one, or not be set"},
	} {
		var warned said
		s := &session{
			o:  Options{Version: tt.client, AgentImage: image, Log: slog.New(slog.DiscardHandler)},
			ev: &warned, tasks: newTasks(), tunnel: connectAgent(t, "1.9"),
			plan: &plan.Plan{Operation: tt.operation, Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-1"}}},
		}
		if err := s.readPod(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := warned.all(); got != tt.want {
			t.Errorf("%s: warned %q\nwant %q", tt.client, got, tt.want)
		}
		if got := s.telepresenceVariables("")["TELEPRESENCE_AGENT_VERSION"]; got != "1.9" {
			t.Errorf("the process is told of agent version %q", got)
		}
	}
}

// connectAgent runs an agent of that version for the time of the test.
func connectAgent(t *testing.T, version string) *proxy.Client {
	t.Helper()
	keys, err := proxy.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = proxy.Serve(ctx, proxy.ServerConfig{ // the client sees what is wrong
			Port: port, HostKey: keys.HostKey, ClientPublic: keys.ClientPublic, Token: keys.Token,
			Grace: time.Minute, Drain: time.Millisecond, Version: version,
		})
	})
	t.Cleanup(serving.Wait)
	t.Cleanup(cancel)
	client, err := proxy.Connect(t.Context(), proxy.ClientConfig{Keys: keys, Dial: func(ctx context.Context) (net.Conn, error) {
		again := time.NewTicker(time.Millisecond)
		defer again.Stop()
		for ; ; <-again.C { // the agent may not listen yet
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil || ctx.Err() != nil {
				return conn, err
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// freePort is a port that nobody listens on, and that the kernel gives to nobody
// of itself: a dial to one that it might give can end at itself.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 100 {
		port := uint16(20_000 + rand.IntN(12_000))
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// TestVersionError checks that whoever is too old is told to be upgraded. The
// other end here is one that greets with another version, and says no more.
func TestVersionError(t *testing.T) {
	t.Parallel()
	var other sync.WaitGroup
	defer other.Wait()
	for _, tt := range []struct {
		other     byte
		operation plan.Operation
		want      string
		hint      string
	}{
		{'9', plan.Standing, "this telepresence is too old for the agent in proxy pod web-1: ", "upgrade telepresence here, to the version of the image that the pod runs"},
		{'9', plan.Swap, "this telepresence is too old for the agent in proxy pod web-1: ", "upgrade telepresence here, or unset TELEPRESENCE_VERSION"},
		{'0', plan.Standing, "the agent in proxy pod web-1 is too old for this telepresence: ", "let that pod run image i:2"},
		{'0', plan.Swap, "the agent in proxy pod web-1 is too old for this telepresence: ", "let TELEPRESENCE_VERSION name this version, or unset it"},
	} {
		keys, err := proxy.NewKeys()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = proxy.Connect(t.Context(), proxy.ClientConfig{Keys: keys, Dial: func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			other.Go(func() { _, _ = io.Copy(io.Discard, far) }) // ends when near is closed
			other.Go(func() { _, _ = far.Write([]byte("tp-resume/" + string(rune(tt.other)) + "\n0123456789abcdef")) })
			return near, nil
		}})
		if err == nil || time.Since(began) > 5*time.Second {
			t.Fatalf("%c: after %v: %v", tt.other, time.Since(began), err)
		}
		s := &session{
			o:    Options{AgentImage: "i:2"},
			plan: &plan.Plan{Operation: tt.operation, Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-1"}}},
		}
		var got *versionError
		if !errors.As(s.tunnelError(err), &got) || got.Hint() != tt.hint ||
			got.Error() != tt.want+"the other side speaks version "+string(rune(tt.other))+" of the protocol, this side version 1" {
			t.Errorf("%c: %v; hint %q, want %q", tt.other, s.tunnelError(err), got.Hint(), tt.hint)
		}
	}
}
