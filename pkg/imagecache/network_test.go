package imagecache

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// real is a node with its registry and its peers' port, on the loopback.
type real struct {
	node     *Node
	registry *httptest.Server
	peers    *httptest.Server
}

func newReal(t *testing.T, name string, certs Certificates, allowed []string, others func() map[string]Peer) *real {
	t.Helper()
	store, err := OpenStore(t.TempDir(), DefaultLimit)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	trip := http.DefaultTransport.(*http.Transport).Clone()
	node := New(Config{Name: name, Store: store, Origin: NewRegistryOrigin(allowed, trip), Peers: others, Log: log})
	r := &real{node: node, registry: httptest.NewServer(RegistryHandler(node, "token", log))}
	config, err := certs.TLS()
	if err != nil {
		t.Fatal(err)
	}
	r.peers = httptest.NewUnstartedServer(PeerHandler(node, log))
	r.peers.TLS = config
	r.peers.StartTLS()
	t.Cleanup(func() {
		r.registry.Close()
		r.peers.Close()
		_ = node.Close()
		trip.CloseIdleConnections()
	})
	return r
}

func host(s *httptest.Server) string { return s.Listener.Addr().String() }

// startNodes are nodes that know each other, over real connections.
func startNodes(t *testing.T, allowed []string, names ...string) map[string]*real {
	t.Helper()
	certs, err := NewCertificates(time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := certs.TLS()
	if err != nil {
		t.Fatal(err)
	}
	nodes := make(map[string]*real)
	peers := make(map[string]*peerClient)
	for _, name := range names {
		nodes[name] = newReal(t, name, certs, allowed, func() map[string]Peer {
			others := make(map[string]Peer)
			for n, p := range peers {
				if n != name {
					others[n] = p
				}
			}
			return others
		})
	}
	for _, name := range names {
		p := NewPeer(host(nodes[name].peers), config).(*peerClient)
		peers[name] = p
		t.Cleanup(func() { p.client.CloseIdleConnections() })
	}
	return nodes
}

// pushImage gives a registry an image with so many layers of size bytes.
func pushImage(t *testing.T, repo string, size, layers int64) v1.Hash {
	t.Helper()
	img, err := random.Image(size, layers)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(repo + ":1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pullImage pulls as a runtime does, and compares all digests.
func pullImage(t *testing.T, from *real, repo string, d v1.Hash) {
	t.Helper()
	port := from.registry.Listener.Addr().(*net.TCPAddr).Port
	ref, err := name.ParseReference(Reference(port, repo, Digest(d.String())))
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
}

func TestImageThroughTheNetwork(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(origin.Close)
	repo := host(origin) + "/shop/agent"
	d := pushImage(t, repo, 3*ChunkSize+100, 2)
	nodes := startNodes(t, []string{repo}, "a", "b", "c")
	for _, n := range []string{"a", "b"} {
		pullImage(t, nodes[n], repo, d)
	}
	origin.Close()
	before := nodes["c"].node.Counts() // what it fetched as an owner
	pullImage(t, nodes["c"], repo, d)
	if got := nodes["c"].node.Counts(); got.FromOrigin != before.FromOrigin || got.FromPeers == before.FromPeers {
		t.Errorf("the last node's counts are %+v", got)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	const repo = "docker.io/shop/agent"
	nodes := startNodes(t, []string{repo}, "a", "b")
	text := []byte("a blob that no registry has")
	r := &registry{blobs: make(map[Digest][]byte)}
	d, blob := r.add(len(text))
	put := func(token string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, nodes["a"].registry.URL+"/v2/"+repo+"/blobs/"+string(d), bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if got := put("wrong"); got != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d", got)
	}
	if got := put("token"); got != http.StatusCreated {
		t.Fatalf("with the token: %d", got)
	}
	resp, err := http.Get(nodes["b"].registry.URL + "/v2/" + repo + "/blobs/" + string(d)) //nolint:noctx // a test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, blob) {
		t.Errorf("its neighbour serves %d bytes, %v", len(got), err)
	}
}

func TestStrangersAreTurnedAway(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, []string{"docker.io/shop/agent"}, "a")
	stranger, err := NewCertificates(time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := stranger.TLS()
	if err != nil {
		t.Fatal(err)
	}
	config.InsecureSkipVerify = true                                      //nolint:gosec // the stranger would take any server
	for _, c := range []*tls.Config{config, {InsecureSkipVerify: true}} { //nolint:gosec // as above
		p := NewPeer(host(nodes["a"].peers), c).(*peerClient)
		_, err := p.Chunk(t.Context(), "docker.io/shop/agent", Chunk{Blob: "sha256:" + Digest(strings.Repeat("0", 64))}, true, func(Stage) {})
		if err == nil || !strings.Contains(err.Error(), "tls") {
			t.Errorf("error is %v", err)
		}
		p.client.CloseIdleConnections()
	}
}

// tellingOrigin goes on sending until it is told to answer.
type tellingOrigin chan struct{}

func (o tellingOrigin) Chunk(ctx context.Context, _ string, _ Chunk, more func()) (Answer, error) {
	for {
		more()
		select {
		case <-o:
			return Answer{Size: 3, Data: []byte("abc")}, nil
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return Answer{}, context.Cause(ctx)
		}
	}
}

// As long as the origin sends, its owner says so to who waits for the chunk.
func TestSlowOrigin(t *testing.T) {
	t.Parallel()
	store, err := OpenStore(t.TempDir(), DefaultLimit)
	if err != nil {
		t.Fatal(err)
	}
	origin, log := make(tellingOrigin), slog.New(slog.DiscardHandler)
	owner := New(Config{Name: "a", Store: store, Origin: origin, Log: log, Peers: func() map[string]Peer { return nil }, Times: Times{Work: 20 * time.Millisecond}})
	server := httptest.NewTLSServer(PeerHandler(owner, log))
	t.Cleanup(server.Close)
	p := NewPeer(host(server), &tls.Config{InsecureSkipVerify: true}).(*peerClient) //nolint:gosec // the test's own server
	t.Cleanup(p.client.CloseIdleConnections)
	taken, sending := 0, 0
	a, err := p.Chunk(t.Context(), "docker.io/a/b", Chunk{Blob: "sha256:" + Digest(strings.Repeat("0", 64))}, false, func(s Stage) {
		switch {
		case s == Sending:
			sending++
		case taken == 3:
			close(origin)
			taken++
		default:
			taken++
		}
	})
	if err != nil || string(a.Data) != "abc" || a.Size != 3 || taken < 4 || sending != 1 {
		t.Errorf("got %q of %d, %v; told %d times that it works on it, %d that it sends", a.Data, a.Size, err, taken, sending)
	}
}

// Who asks learns when the chunk is there, and only its way is left.
func TestStages(t *testing.T) {
	t.Parallel()
	ready, sent := make(chan struct{}), make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		flush := http.NewResponseController(w).Flush
		_ = flush()
		<-ready
		_, _ = w.Write(make([]byte, sizePrefix))
		_ = flush()
		<-sent
	}))
	t.Cleanup(server.Close)
	p := NewPeer(host(server), &tls.Config{InsecureSkipVerify: true}).(*peerClient) //nolint:gosec // the test's own server
	t.Cleanup(p.client.CloseIdleConnections)
	var stages []Stage
	_, err := p.Chunk(t.Context(), "docker.io/a/b", Chunk{Blob: "sha256:" + Digest(strings.Repeat("0", 64))}, false, func(s Stage) {
		stages = append(stages, s)
		if s == Taken {
			close(ready)
		} else {
			close(sent)
		}
	})
	if err != nil || !slices.Equal(stages, []Stage{Taken, Sending}) {
		t.Errorf("the stages were %v, %v", stages, err)
	}
}

func TestOtherRepositories(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, []string{"docker.io/shop/agent"}, "a")
	resp, err := http.Get(nodes["a"].registry.URL + "/v2/docker.io/other/image/blobs/sha256:" + strings.Repeat("0", 64)) //nolint:noctx // a test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the answer is %s", resp.Status)
	}
}

func TestParseRange(t *testing.T) {
	t.Parallel()
	for header, want := range map[string][2]int64{"": {0, 10}, "bytes=0-3": {0, 4}, "bytes=4-": {4, 10}, "bytes=4-99": {4, 10}, "bytes=-3": {7, 10}, "bytes=-99": {0, 10}, "bytes=1-2,4-5": {0, 10}, "chars=1-2": {0, 10}} {
		first, end, _, err := parseRange(header, 10)
		if err != nil || first != want[0] || end != want[1] {
			t.Errorf("%q is %d to %d, %v", header, first, end, err)
		}
	}
	for _, header := range []string{"bytes=10-", "bytes=3-2", "bytes=a-", "bytes=-0", "bytes=--1", "bytes=+1-2"} {
		if first, end, _, err := parseRange(header, 10); err == nil {
			t.Errorf("%q was taken for %d to %d", header, first, end)
		}
	}
}

// Whatever range is asked for, what is served lies within the blob.
func FuzzParseRange(f *testing.F) {
	f.Add("bytes=0-1", int64(5))
	f.Add("bytes=-5", int64(0))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		first, end, _, err := parseRange(header, size)
		if err == nil && (first < 0 || first > end || end > size) {
			t.Errorf("%q of %d is %d to %d", header, size, first, end)
		}
	})
}

// Whatever path a peer asks for, what is taken names a chunk of a repository.
func FuzzParseChunkPath(f *testing.F) {
	f.Add("docker.io/a/b/sha256:" + strings.Repeat("0", 64) + "/3")
	f.Add("../sha256:x/-1")
	f.Fuzz(func(t *testing.T, path string) {
		repo, c, err := parseChunkPath(path)
		if err != nil {
			return
		}
		if c.Index < 0 || strings.Contains(repo, "..") || checkRepo(repo) != nil {
			t.Errorf("%q is %q %v", path, repo, c)
		}
	})
}
