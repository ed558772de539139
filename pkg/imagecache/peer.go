package imagecache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What peers say to each other, over HTTP/1.1 and mutual TLS:
//
//	GET /chunk/REPO/DIGEST/INDEX[?held]    a chunk; with held, 404 unless it is there
//
// The head of the answer comes at once, and tells that work on it has begun. The
// body comes when the chunk is there: eight bytes, the blob's size as a big-endian
// number, then the chunk. Before that it may hold stillAtIt any number of times,
// each when the origin has sent more to the node: so that a slow origin isn't taken
// for a slow node. A body that is cut short is a failure.
const (
	chunkPath  = "/chunk/"
	heldQuery  = "held"
	sizePrefix = 8
)

// PeerHandler serves a node's chunks to its peers. Who may ask is the listener's
// affair: mutual TLS.
func PeerHandler(n *Node, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+chunkPath, func(w http.ResponseWriter, r *http.Request) {
		// As long to find the chunk as to send it: a node without power doesn't hang up.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * n.cfg.Times.Chunk))
		repo, c, err := parseChunkPath(strings.TrimPrefix(r.URL.Path, chunkPath))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		begun, stop := false, func() {}
		a, err := n.Serve(r.Context(), repo, c, r.URL.Query().Has(heldQuery), func() {
			begun = true
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			stop = n.tellProgress(w)
		})
		stop()
		switch {
		case err != nil && begun:
			log.Info("a chunk could not be had", "chunk", c, "err", err)
			panic(http.ErrAbortHandler) // the asker must not take what it has for the whole
		case errors.Is(err, ErrNotHeld), errors.Is(err, ErrUnknown):
			http.Error(w, err.Error(), http.StatusNotFound)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadGateway)
		default:
			head := make([]byte, sizePrefix)
			putSize(head, a.Size)
			if _, err := w.Write(append(head, a.Data...)); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
	})
	return mux
}

// tellProgress writes stillAtIt into an answer as long as the origin sends. The
// caller stops it, and may write itself from then on.
func (n *Node) tellProgress(w http.ResponseWriter) (stop func()) {
	done := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		tick := time.NewTicker(n.cfg.Times.Work / 4)
		defer tick.Stop()
		word := make([]byte, sizePrefix)
		putSize(word, stillAtIt)
		for last := n.progress.Load(); ; {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			now := n.progress.Load()
			if now == last {
				continue
			}
			last = now
			if _, err := w.Write(word); err != nil {
				return // the asker is gone, which ends the work too
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	return func() {
		close(done)
		telling.Wait()
	}
}

// parseChunkPath reads REPO/DIGEST/INDEX.
func parseChunkPath(path string) (repo string, c Chunk, err error) {
	parts := strings.Split(path, "/")
	if len(parts) < 3 {
		return "", c, fmt.Errorf("%q is not REPO/DIGEST/INDEX", path)
	}
	if c.Index, err = strconv.Atoi(parts[len(parts)-1]); err != nil || c.Index < 0 || c.Index > 1<<30 {
		return "", c, fmt.Errorf("%q is not a chunk's index", parts[len(parts)-1])
	}
	if c.Blob, err = ParseDigest(parts[len(parts)-2]); err != nil {
		return "", c, err
	}
	repo = strings.Join(parts[:len(parts)-2], "/")
	return repo, c, checkRepo(repo)
}

// peerClient is another node, over the network. Safe for concurrent use.
type peerClient struct {
	base   string // https://address:port
	client *http.Client
}

// NewPeer is the node at an address. tlsConfig, shared by all peers' clients,
// holds this node's certificate and the authority that signs the others'.
func NewPeer(address string, tlsConfig *tls.Config) Peer {
	return &peerClient{
		base: "https://" + address,
		client: &http.Client{Transport: &http.Transport{
			TLSClientConfig: tlsConfig, MaxIdleConnsPerHost: underWay, IdleConnTimeout: time.Minute, DisableCompression: true,
		}},
	}
}

// Chunk asks the peer.
func (p *peerClient) Chunk(ctx context.Context, repo string, c Chunk, held bool, tell func(Stage)) (Answer, error) {
	at := p.base + chunkPath + (&url.URL{Path: repo}).EscapedPath() + "/" + string(c.Blob) + "/" + strconv.Itoa(c.Index)
	if held {
		at += "?" + heldQuery
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return Answer{}, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		// Read to its end, the connection serves the next question.
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10))
		return Answer{}, ErrNotHeld
	default:
		return Answer{}, fmt.Errorf("it answers %s", resp.Status)
	}
	var head [sizePrefix]byte
	for putSize(head[:], stillAtIt); size(head[:]) == stillAtIt; {
		tell(Taken)
		if _, err := io.ReadFull(resp.Body, head[:]); err != nil {
			return Answer{}, err
		}
	}
	tell(Sending)
	data, err := io.ReadAll(io.LimitReader(resp.Body, ChunkSize+1))
	if err != nil {
		return Answer{}, err
	}
	if len(data) > ChunkSize {
		return Answer{}, fmt.Errorf("it sent more than %d bytes", ChunkSize)
	}
	return Answer{Size: size(head[:]), Data: data}, nil
}
