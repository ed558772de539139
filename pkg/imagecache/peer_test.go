package imagecache

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener hands out one connection.
type pipeListener struct {
	net.Listener

	conns chan net.Conn
}

func (l pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l pipeListener) Close() error { return nil }

// A peer that neither reads nor hangs up, as one without power, holds nothing for
// longer than a chunk may take.
func TestPeerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, err := OpenStore(t.TempDir(), DefaultLimit)
		if err != nil {
			t.Fatal(err)
		}
		d := put(t, store, make([]byte, ChunkSize))
		log := slog.New(slog.DiscardHandler)
		node := New(Config{Name: "a", Store: store, Log: log, Peers: func() map[string]Peer { return nil }})
		ended := make(chan struct{})
		handler := PeerHandler(node, log)
		server := &http.Server{ //nolint:gosec // the test's own
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				handler.ServeHTTP(w, r)
			}),
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		}
		l := pipeListener{conns: make(chan net.Conn, 1)}
		ours, theirs := net.Pipe()
		l.conns <- theirs
		var running sync.WaitGroup
		running.Go(func() { _ = server.Serve(l) })
		fmt.Fprintf(ours, "GET /chunk/docker.io/a/b/%s/0 HTTP/1.1\r\nHost: a\r\n\r\n", d)
		began := time.Now()
		<-ended
		if took := time.Since(began); took > 2*node.cfg.Times.Chunk {
			t.Errorf("it took %s", took)
		}
		close(l.conns)
		_ = server.Close()
		_ = ours.Close()
		running.Wait()
		_ = node.Close()
	})
}
