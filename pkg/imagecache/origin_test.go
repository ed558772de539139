package imagecache

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
)

// counted is an answer whose bytes are counted.
type counted struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// Some registries refuse a range that goes past the blob's end, as every last
// chunk's does. It must not cost more than the chunk.
func TestEachByteLeavesTheRegistryOnce(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	registry := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		registry.ServeHTTP(counted{w, &sent}, r)
	}))
	t.Cleanup(origin.Close)
	const layer = 5*ChunkSize + 100
	repo := host(origin) + "/shop/agent"
	d := pushImage(t, repo, layer, 1)
	nodes := startNodes(t, []string{repo}, "a", "b", "c")
	sent.Store(0)
	pullImage(t, nodes["a"], repo, d)
	if got := sent.Load(); got < layer || got > layer+layer/20 {
		t.Errorf("the registry sent %d bytes for an image of %d", got, layer)
	}
}
