package imagecache

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// Who waits for a registry's leave, which somebody else has asked for, waits no
// longer than its own time.
func TestWaitingForARegistrysLeave(t *testing.T) {
	t.Parallel()
	asked, hang := make(chan struct{}, 1), make(chan struct{})
	registry := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-hang
	}))
	t.Cleanup(registry.Close)
	repo := host(registry) + "/shop/agent"
	trip := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(trip.CloseIdleConnections)
	origin := NewRegistryOrigin([]string{repo}, trip)
	chunk := Chunk{Blob: "sha256:" + Digest(strings.Repeat("0", 64))}
	var first sync.WaitGroup
	first.Go(func() { _, _ = origin.Chunk(t.Context(), repo, chunk, func() {}) })
	<-asked
	impatient, cancel := context.WithCancelCause(t.Context())
	given := errors.New("given up")
	cancel(given)
	var second sync.WaitGroup
	gaveUp := make(chan error, 1)
	second.Go(func() {
		_, err := origin.Chunk(impatient, repo, chunk, func() {})
		gaveUp <- err
	})
	select {
	case err := <-gaveUp:
		if !errors.Is(err, given) {
			t.Errorf("error is %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for who asked before")
	}
	close(hang)
	first.Wait()
	second.Wait()
}
