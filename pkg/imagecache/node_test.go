package imagecache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registry is an origin that holds blobs.
type registry struct {
	mu    sync.Mutex
	blobs map[Digest][]byte
	gone  bool
	sent  atomic.Int64
}

func (r *registry) Chunk(_ context.Context, _ string, c Chunk, _ func()) (Answer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	blob, ok := r.blobs[c.Blob]
	if r.gone {
		return Answer{}, errors.New("the registry is gone")
	}
	if !ok {
		return Answer{}, ErrUnknown
	}
	a := part(blob, c.Index)
	r.sent.Add(int64(len(a.Data)))
	return a, nil
}

func part(blob []byte, index int) Answer {
	size := int64(len(blob))
	first := int64(index) * ChunkSize
	return Answer{Data: bytes.Clone(blob[first : first+max(chunkLength(size, index), 0)]), Size: size}
}

func (r *registry) add(size int) (Digest, []byte) {
	blob := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = rng.Read(blob)
	sum := sha256.Sum256(blob)
	d := Digest("sha256:" + hex.EncodeToString(sum[:]))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[d] = blob
	return d, blob
}

// fault is what a peer does wrong.
type fault func(ctx context.Context, a Answer, err error) (Answer, error)

// link is a node as another sees it.
type link struct {
	node *Node
	mesh *mesh
}

func (l link) Chunk(ctx context.Context, repo string, c Chunk, held bool, tell func(Stage)) (Answer, error) {
	l.mesh.mu.Lock()
	wrong := l.mesh.faults[l.node.cfg.Name]
	l.mesh.mu.Unlock()
	a, err := l.node.Serve(ctx, repo, c, held, func() { tell(Taken) })
	if wrong != nil {
		return wrong(ctx, a, err)
	}
	return a, err
}

// mesh is some nodes that know each other, and an origin.
type mesh struct {
	origin *registry
	times  Times
	nodes  []*Node

	mu     sync.Mutex
	faults map[string]fault
	dead   map[string]bool
}

// patient is for meshes without faults, in which nobody is to be asked twice,
// however busy the machine.
var patient = Times{Start: time.Minute, Work: time.Minute, Send: time.Minute, Chunk: time.Minute}

// hasty is for meshes in which somebody is to be given up.
var hasty = Times{Start: 100 * time.Millisecond, Work: 500 * time.Millisecond, Send: 200 * time.Millisecond}

func newMesh(t *testing.T, n int, times Times) *mesh {
	t.Helper()
	m := &mesh{times: times, origin: &registry{blobs: make(map[Digest][]byte)}, faults: make(map[string]fault), dead: make(map[string]bool)}
	for i := range n {
		m.join(t, fmt.Sprintf("node%d", i))
	}
	return m
}

func (m *mesh) join(t *testing.T, name string) *Node {
	t.Helper()
	store, err := OpenStore(t.TempDir(), DefaultLimit)
	if err != nil {
		t.Fatal(err)
	}
	node := New(Config{
		Name: name, Store: store, Origin: m.origin, Log: slog.New(slog.DiscardHandler),
		Peers: func() map[string]Peer { return m.peersOf(name) },
		Times: m.times,
	})
	t.Cleanup(func() { _ = node.Close() })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes = append(m.nodes, node)
	return node
}

func (m *mesh) peersOf(name string) map[string]Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	peers := make(map[string]Peer)
	for _, n := range m.nodes {
		if n.cfg.Name != name && !m.dead[n.cfg.Name] {
			peers[n.cfg.Name] = link{n, m}
		}
	}
	return peers
}

func (m *mesh) setFault(name string, f fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults[name] = f
}

// pull reads a blob as a runtime does.
func pull(ctx context.Context, n *Node, d Digest) ([]byte, error) {
	blob, err := n.Open(ctx, "repo", d)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = blob.Copy(ctx, &b, 0, blob.Size)
	return b.Bytes(), errors.Join(err, blob.Close())
}

// pullAll has all nodes pull at once.
func (m *mesh) pullAll(t *testing.T, d Digest, want []byte) {
	t.Helper()
	var all sync.WaitGroup
	for _, n := range m.nodes {
		all.Go(func() {
			got, err := pull(t.Context(), n, d)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s got %d bytes, %v", n.cfg.Name, len(got), err)
			}
		})
	}
	all.Wait()
}

func TestAllAtOnce(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 8, patient)
	d, blob := m.origin.add(12*ChunkSize + 5)
	m.pullAll(t, d, blob)
	if sent := m.origin.sent.Load(); sent != int64(len(blob)) {
		t.Errorf("the origin sent %d bytes of a blob of %d", sent, len(blob))
	}
}

// While chunks are on their way between the nodes, the owners go on fetching
// theirs: the origin's link, which is the slowest, doesn't wait for the others.
func TestOwnersFetchAhead(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 8, patient)
	d, blob := m.origin.add(30 * ChunkSize)
	arrive := make(chan struct{})
	for _, n := range m.nodes {
		m.setFault(n.cfg.Name, func(ctx context.Context, a Answer, err error) (Answer, error) {
			if err != nil || bytes.Equal(a.Data, blob[:ChunkSize]) {
				return a, err // the first is free, of which they learn the blob's size
			}
			select {
			case <-arrive:
				return a, err
			case <-ctx.Done():
				return Answer{}, context.Cause(ctx)
			}
		})
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		defer close(arrive)
		for m.origin.sent.Load() < (1+ahead)*ChunkSize {
			select {
			case <-t.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	m.pullAll(t, d, blob)
	watching.Wait()
	if sent := m.origin.sent.Load(); sent != int64(len(blob)) {
		t.Errorf("the origin sent %d bytes of a blob of %d", sent, len(blob))
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, hasty)
	for _, size := range []int{0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 3 * ChunkSize} {
		d, blob := m.origin.add(size)
		m.pullAll(t, d, blob)
	}
}

func TestHeldByANeighbour(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 5, hasty)
	d, blob := m.origin.add(6 * ChunkSize)
	if err := m.nodes[2].cfg.Store.Put(d, bytes.NewReader(blob)); err != nil {
		t.Fatal(err)
	}
	m.origin.gone = true
	m.pullAll(t, d, blob)
	late := m.join(t, "late")
	if got, err := pull(t.Context(), late, d); err != nil || !bytes.Equal(got, blob) {
		t.Errorf("who joins later got %d bytes, %v", len(got), err)
	}
	if sent := m.origin.sent.Load(); sent != 0 {
		t.Errorf("the origin sent %d bytes", sent)
	}
}

// What was pushed is taken from its home, though the origin has it too.
func TestPushedComesFromItsHome(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 8, patient)
	d, blob := m.origin.add(12 * ChunkSize)
	names := nodeNamesOf(m)
	for _, n := range m.nodes {
		if n.cfg.Name == Homes(d, names)[0] {
			if err := n.cfg.Store.Put(d, bytes.NewReader(blob)); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.pullAll(t, d, blob)
	if sent := m.origin.sent.Load(); sent != 0 {
		t.Errorf("the origin sent %d bytes", sent)
	}
}

// A peer that is shunned is asked all the same where nobody else has it.
func TestOnlyHolderIsShunned(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 8, patient)
	d, blob := m.origin.add(3 * ChunkSize)
	if err := m.nodes[2].cfg.Store.Put(d, bytes.NewReader(blob)); err != nil {
		t.Fatal(err)
	}
	m.origin.gone = true
	for _, n := range m.nodes {
		n.shun("node2", true, errDigest)
	}
	m.pullAll(t, d, blob)
}

func nodeNamesOf(m *mesh) []string {
	var names []string
	for _, n := range m.nodes {
		names = append(names, n.cfg.Name)
	}
	return names
}

func TestLiar(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 6, hasty)
	d, blob := m.origin.add(20 * ChunkSize)
	m.setFault("node3", func(_ context.Context, a Answer, err error) (Answer, error) {
		if err == nil {
			a.Data = bytes.Clone(a.Data)
			a.Data[len(a.Data)/2] ^= 1
		}
		return a, err
	})
	honest := m.nodes
	m.pullAll(t, d, blob)
	shunned := 0
	for _, n := range honest {
		if n.isShunned("node3") {
			shunned++
		}
	}
	if shunned != 5 {
		t.Errorf("%d of 5 nodes shun the liar", shunned)
	}
}

func TestHangs(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 6, hasty)
	d, blob := m.origin.add(10 * ChunkSize)
	m.setFault("node1", func(ctx context.Context, _ Answer, _ error) (Answer, error) {
		<-ctx.Done()
		return Answer{}, ctx.Err()
	})
	m.pullAll(t, d, blob)
	for _, n := range m.nodes {
		if n.cfg.Name != "node1" && !n.isSlow("node1") {
			t.Errorf("%s doesn't ask the one that hangs last", n.cfg.Name)
		}
	}
}

func TestBreaks(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 6, hasty)
	d, blob := m.origin.add(10 * ChunkSize)
	m.setFault("node1", func(context.Context, Answer, error) (Answer, error) {
		return Answer{}, errors.New("connection reset")
	})
	m.pullAll(t, d, blob)
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, hasty)
	d := Digest("sha256:" + hex.EncodeToString(make([]byte, 32)))
	if _, err := pull(t.Context(), m.nodes[0], d); !errors.Is(err, ErrUnknown) {
		t.Errorf("error is %v", err)
	}
}

func TestStoreLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := OpenStore(dir, 100)
	if err != nil {
		t.Fatal(err)
	}
	r := &registry{blobs: make(map[Digest][]byte)}
	var last Digest
	for i := range 5 {
		d, blob := r.add(30 + i)
		if err := s.Put(d, bytes.NewReader(blob)); err != nil {
			t.Fatal(err)
		}
		last = d
	}
	if blobs, bytes := s.Held(); blobs != 3 || bytes > 100 {
		t.Errorf("it holds %d blobs, %d bytes", blobs, bytes)
	}
	if err := s.Put(last, bytes.NewReader([]byte("other"))); !errors.Is(err, errDigest) {
		t.Errorf("wrong bytes: %v", err)
	}
	again, err := OpenStore(dir, 40)
	if err != nil {
		t.Fatal(err)
	}
	if blobs, bytes := again.Held(); blobs != 1 || bytes > 40 {
		t.Errorf("opened again it holds %d blobs, %d bytes", blobs, bytes)
	}
}
