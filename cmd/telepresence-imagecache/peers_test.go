package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telepresence/telepresence/pkg/imagecache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writeCerts writes certificates as the kubelet does a Secret's.
func writeCerts(t *testing.T, dir string, c imagecache.Certificates) {
	t.Helper()
	for name, text := range map[string][]byte{
		imagecache.AuthorityFile: c.Authority, imagecache.CertFile: c.Cert, imagecache.KeyFile: c.Key,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// testNode is a node's peers, and the port that others reach it at.
type testNode struct {
	dir    string
	peers  *peers
	server *httptest.Server
}

func newTestNode(t *testing.T, name string, certs imagecache.Certificates, nodes func() map[string]string) *testNode {
	t.Helper()
	n := &testNode{dir: t.TempDir()}
	writeCerts(t, n.dir, certs)
	log := slog.New(slog.DiscardHandler)
	var err error
	if n.peers, err = newPeers(name, n.dir, nodes, log); err != nil {
		t.Fatal(err)
	}
	store, err := imagecache.OpenStore(t.TempDir(), imagecache.DefaultLimit)
	if err != nil {
		t.Fatal(err)
	}
	node := imagecache.New(imagecache.Config{
		Name: name, Store: store, Log: log, Peers: func() map[string]imagecache.Peer { return nil },
	})
	n.server = httptest.NewUnstartedServer(imagecache.PeerHandler(node, log))
	n.server.Listener = tls.NewListener(n.server.Listener, n.peers.serverTLS())
	n.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	n.server.Start()
	t.Cleanup(func() {
		n.server.Close()
		_ = node.Close()
	})
	return n
}

// asks tells how it goes when a node asks the other for what that doesn't have.
func (n *testNode) asks(ctx context.Context) error {
	c := imagecache.Chunk{Blob: imagecache.Digest("sha256:" + strings.Repeat("0", 64))}
	for _, p := range n.peers.all() {
		if _, err := p.Chunk(ctx, "docker.io/shop/agent", c, true, func(imagecache.Stage) {}); err != imagecache.ErrNotHeld { //nolint:errorlint // the very one
			return err
		}
	}
	return nil
}

// A renewed certificate is taken up without a restart: those who have it talk to
// each other, and to no more than those.
func TestRenewal(t *testing.T) {
	t.Parallel()
	old, err := imagecache.NewCertificates(time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := imagecache.NewCertificates(time.Now(), old.Authority)
	if err != nil {
		t.Fatal(err)
	}
	addresses := make(map[string]string)
	nodes := func() map[string]string { return addresses }
	a, b := newTestNode(t, "a", old, nodes), newTestNode(t, "b", old, nodes)
	addresses["a"], addresses["b"] = a.server.Listener.Addr().String(), b.server.Listener.Addr().String()
	both := func(when string) {
		t.Helper()
		for name, n := range map[string]*testNode{"a": a, "b": b} {
			if err := n.asks(t.Context()); err != nil {
				t.Errorf("%s: %s asks the other: %v", when, name, err)
			}
		}
	}
	take := func(n *testNode) {
		t.Helper()
		writeCerts(t, n.dir, renewed)
		if err := n.peers.load(); err != nil {
			t.Fatal(err)
		}
	}
	both("before")
	take(a)
	if err := a.asks(t.Context()); err == nil {
		t.Error("one that doesn't know the new authority answers who has the new certificate")
	}
	take(b)
	both("after")
	if !a.peers.certs.Equal(renewed) {
		t.Error("it has another certificate")
	}
}

// Of a node that is gone, nothing is kept.
func TestPeersThatAreGone(t *testing.T) {
	t.Parallel()
	certs, err := imagecache.NewCertificates(time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeCerts(t, dir, certs)
	addresses := map[string]string{"a": "192.0.2.1:1", "b": "192.0.2.2:1", "c": "192.0.2.3:1"}
	p, err := newPeers("a", dir, func() map[string]string { return addresses }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	before := p.all()
	delete(addresses, "c")
	after := p.all()
	if len(before) != 2 || len(after) != 1 || after["b"] != before["b"] || len(p.made) != 1 {
		t.Errorf("before %v, after %v, kept %v", before, after, p.made)
	}
}
