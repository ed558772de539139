package imagecache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// Of an index whose images are not all here, a node of an architecture that is
// gets its own, and one of another is told that there is none.
func TestSparseIndex(t *testing.T) {
	t.Parallel()
	const repo = "docker.io/shop/agent"
	nodes := startNodes(t, []string{"docker.io/another/repository"}, "a", "b")
	index, err := random.Index(100, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	here, gone := m.Manifests[0].Digest, m.Manifests[1].Digest
	img, err := index.Image(here)
	if err != nil {
		t.Fatal(err)
	}
	store := nodes["a"].node.cfg.Store
	digest := putManifest(t, store, index)
	putImage(t, store, img)
	port := nodes["b"].registry.Listener.Addr().(*net.TCPAddr).Port
	ref, err := name.ParseReference(Reference(port, repo, digest))
	if err != nil {
		t.Fatal(err)
	}
	served, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	got, err := served.Image(here)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	var refused *transport.Error
	if _, err := served.Image(gone); !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound {
		t.Errorf("of the architecture that isn't there: %v", err)
	}
}

// putImage gives a store all parts of an image.
func putImage(t *testing.T, s *Store, img v1.Image) {
	t.Helper()
	putManifest(t, s, img)
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, config)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		put(t, s, text)
	}
}

// putManifest gives a store what an image, or an index, is described by.
func putManifest(t *testing.T, s *Store, of interface{ RawManifest() ([]byte, error) }) Digest {
	t.Helper()
	text, err := of.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	return put(t, s, text)
}

// put gives a store a blob.
func put(t *testing.T, s *Store, text []byte) Digest {
	t.Helper()
	d := Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(text)))
	if err := s.Put(d, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return d
}
