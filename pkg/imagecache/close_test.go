package imagecache

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"testing"
)

// stuck is an origin that never answers.
type stuck struct{ asked, left chan struct{} }

func (s stuck) Chunk(ctx context.Context, _ string, _ Chunk, _ func()) (Answer, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	close(s.left)
	return Answer{}, ctx.Err()
}

// Close ends what the node does for others too, and waits for it.
func TestCloseWhileAnOwnerAsks(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 1, patient)
	n, origin := m.nodes[0], stuck{make(chan struct{}, 1), make(chan struct{})}
	n.cfg.Origin = origin
	c := Chunk{Blob: Digest("sha256:" + hex.EncodeToString(make([]byte, 32)))}
	ctx, cancel := context.WithCancel(t.Context())
	var asker sync.WaitGroup
	asker.Go(func() {
		if _, err := n.Serve(ctx, "repo", c, false, func() {}); !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up got %v", err)
		}
	})
	<-origin.asked
	cancel()
	asker.Wait()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-origin.left:
	default:
		t.Error("the origin is still being asked")
	}
	if _, err := n.Serve(t.Context(), "repo", c, false, func() {}); !errors.Is(err, errClosing) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := pull(t.Context(), n, c.Blob); !errors.Is(err, errClosing) {
		t.Errorf("after Close: %v", err)
	}
}
