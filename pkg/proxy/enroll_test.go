package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// startStanding runs a standing agent for the time of the test.
func startStanding(t *testing.T) *agent {
	t.Helper()
	addr := freePort(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	a := &agent{addr: addr, stop: cancel, done: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(a.done)
		a.err = Serve(ctx, ServerConfig{Port: addr.Port(), Standing: true, Grace: time.Minute, Drain: 100 * time.Millisecond})
	})
	t.Cleanup(func() {
		cancel(errors.New("the test is over"))
		wg.Wait()
	})
	return a
}

// freePort is a port that nobody listens on, and that the kernel gives to nobody of itself.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 100 {
		addr := loopback(uint16(20_000 + rand.IntN(12_000)))
		if l, err := net.Listen("tcp", addr.String()); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return netip.AddrPort{}
}

// enroll makes new keys and enrolls them, as soon as the agent takes enrolments.
func (a *agent) enroll(t *testing.T, owner string) error {
	t.Helper()
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	a.keys = keys
	ctx := testContext(t)
	for {
		err := Enroll(ctx, a.addr.Port(), EnrollMessage(keys, owner))
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" && ctx.Err() == nil {
			continue
		}
		return err
	}
}

var errEnrolled = errors.New("enrolled")

func TestStanding(t *testing.T) {
	t.Parallel()
	a := startStanding(t)
	for range 3 {
		_ = waitFor(t, func() error { // the last session may be not quite over
			if err := a.enroll(t, "ann@laptop"); err != nil {
				return nil
			}
			return errEnrolled
		})
		c := a.connect(t)
		client, pod := outbound(t, c)
		checkEcho(t, client, pod)
		if err := c.SetReady(testContext(t), true); err != nil {
			t.Fatal(err)
		}
		if err := Ready(testContext(t), a.addr.Port()); err != nil {
			t.Errorf("Ready in a session: %v", err)
		}
		keys := a.keys
		err := a.enroll(t, "bob@desktop")
		if err == nil || !strings.Contains(err.Error(), "ann@laptop uses this proxy since ") {
			t.Errorf("a second enrolment: %v, want a refusal that names the holder", err)
		}
		a.keys = keys
		if err := c.Goodbye(testContext(t)); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if err := waitFor(t, func() error { return Ready(testContext(t), a.addr.Port()) }); !errors.Is(err, ErrNotReady) {
			t.Errorf("Ready after the goodbye: %v", err)
		}
	}
}

// waitFor calls f until it returns an error.
func waitFor(t *testing.T, f func() error) error {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := f(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("waited too long")
		}
	}
}

func TestEnrolmentRefused(t *testing.T) {
	t.Parallel()
	a := startStanding(t)
	if err := a.enroll(t, "ann"); err != nil {
		t.Fatal(err)
	}
	good := EnrollMessage(a.keys, "bob")
	for name, message := range map[string][]byte{
		"empty":    nil,
		"not JSON": []byte("hello"),
		"no token": EnrollMessage(Keys{HostKey: a.keys.HostKey, ClientPublic: a.keys.ClientPublic}, "bob"),
		"no key":   EnrollMessage(Keys{Token: a.keys.Token}, "bob"),
		"long":     []byte(strings.Repeat(" ", enrollMost) + string(good)),
	} {
		if err := Enroll(testContext(t), a.addr.Port(), message); err == nil {
			t.Errorf("%s: enrolled", name)
		}
	}
}

func FuzzParseEnrolment(f *testing.F) {
	k, err := NewKeys()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(EnrollMessage(k, "ann"))
	f.Add([]byte(`{"token":"AA=="}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := parseEnrolment(text)
		if err == nil && (len(e.Token) == 0 || len(e.HostKey) == 0 || len(e.ClientPublic) == 0) {
			t.Errorf("took an enrolment without a key: %q", text)
		}
	})
}
