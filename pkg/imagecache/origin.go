package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// RegistryOrigin fetches from the registries where images are from, as anybody.
// Safe for concurrent use.
type RegistryOrigin struct {
	allowed []string // repositories, HOST/NAME; others are none of ours
	base    http.RoundTripper

	mu    sync.Mutex // guards trips
	trips map[string]*trip
}

// trip is a transport with a registry's leave to pull from one repository.
type trip struct {
	turn chan struct{} // full while somebody asks for the leave: who waits for it may give up
	made http.RoundTripper
}

// NewRegistryOrigin is an origin of some repositories, each HOST/NAME.
func NewRegistryOrigin(allowed []string, base http.RoundTripper) *RegistryOrigin {
	return &RegistryOrigin{allowed: allowed, base: base, trips: make(map[string]*trip)}
}

// Chunk fetches a range of a blob, or of a manifest, which registries keep at
// another place.
func (o *RegistryOrigin) Chunk(ctx context.Context, repo string, c Chunk, more func()) (Answer, error) {
	repository, err := o.repository(repo)
	if err != nil {
		return Answer{}, err
	}
	trip, err := o.trip(ctx, repository)
	if err != nil {
		return Answer{}, fmt.Errorf("registry %s: %w", repository.RegistryStr(), err)
	}
	trip = listening{trip, more}
	base := repository.Scheme() + "://" + repository.RegistryStr() + "/v2/" + repository.RepositoryStr()
	for _, kind := range []string{"/blobs/", "/manifests/"} {
		url := base + kind + string(c.Blob)
		a, status, err := fetchChunk(ctx, trip, url, c.Index, ChunkSize)
		if status == http.StatusRequestedRangeNotSatisfiable {
			a, status, err = fetchExactly(ctx, trip, url, c.Index)
		}
		switch {
		case err != nil:
			return Answer{}, fmt.Errorf("registry %s: %w", repository.RegistryStr(), err)
		case status == http.StatusOK:
			return a, nil
		case status != http.StatusNotFound:
			return Answer{}, fmt.Errorf("registry %s answers %d for %s", repository.RegistryStr(), status, c.Blob)
		}
	}
	return Answer{}, fmt.Errorf("%s in %s: %w", c.Blob, repo, ErrUnknown)
}

func (o *RegistryOrigin) repository(repo string) (name.Repository, error) {
	for _, a := range o.allowed {
		if a == repo {
			host, path, _ := strings.Cut(repo, "/")
			return name.NewRepository(host+"/"+path, name.StrictValidation)
		}
	}
	return name.Repository{}, fmt.Errorf("%s is not one of this cache's repositories: %w", repo, ErrUnknown)
}

// trip is the transport for a repository, whose leave is asked for once.
func (o *RegistryOrigin) trip(ctx context.Context, r name.Repository) (http.RoundTripper, error) {
	o.mu.Lock()
	t := o.trips[r.Name()]
	if t == nil {
		t = &trip{turn: make(chan struct{}, 1)}
		o.trips[r.Name()] = t
	}
	o.mu.Unlock()
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if t.made != nil {
		return t.made, nil
	}
	made, err := transport.NewWithContext(ctx, r.Registry, authn.Anonymous, o.base, []string{r.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	t.made = made
	return made, nil
}

// accepted are the kinds of manifest that runtimes take.
const accepted = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*"

// fetchExactly gets a chunk from a registry that refuses a range which goes past
// the blob's end, where RFC 9110, section 14.1.2, would have it answer with what
// there is. Out of the whole, the last chunk would cost as much as all others.
func fetchExactly(ctx context.Context, trip http.RoundTripper, url string, index int) (Answer, int, error) {
	resp, err := request(ctx, trip, http.MethodHead, url, "")
	if err != nil {
		return Answer{}, 0, err
	}
	defer resp.Body.Close()
	length := chunkLength(resp.ContentLength, index)
	switch {
	case resp.StatusCode != http.StatusOK:
		return Answer{}, resp.StatusCode, nil
	case resp.ContentLength == 0 && index == 0:
		return Answer{}, http.StatusOK, nil
	case length <= 0:
		return Answer{}, 0, fmt.Errorf("it refuses a part of %d bytes", resp.ContentLength)
	}
	return fetchChunk(ctx, trip, url, index, length)
}

// fetchChunk gets one chunk of so many bytes at most, by its range. Registries
// may answer a range with the whole, as they do for manifests.
func fetchChunk(ctx context.Context, trip http.RoundTripper, url string, index int, length int64) (Answer, int, error) {
	first := int64(index) * ChunkSize
	resp, err := request(ctx, trip, http.MethodGet, url, fmt.Sprintf("bytes=%d-%d", first, first+length-1))
	if err != nil {
		return Answer{}, 0, err
	}
	defer resp.Body.Close()
	a := Answer{Size: resp.ContentLength}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
		if a.Size, err = strconv.ParseInt(total, 10, 64); err != nil {
			return Answer{}, 0, fmt.Errorf("it answers with the range %q", resp.Header.Get("Content-Range"))
		}
	case http.StatusOK:
		if _, err := io.CopyN(io.Discard, resp.Body, first); err != nil {
			return Answer{}, 0, err
		}
	default:
		return Answer{}, resp.StatusCode, nil
	}
	if a.Data, err = io.ReadAll(io.LimitReader(resp.Body, ChunkSize)); err != nil {
		return Answer{}, 0, err
	}
	if a.Size < 0 && len(a.Data) < ChunkSize { // it doesn't say, and this is the end
		a.Size = first + int64(len(a.Data))
	}
	if a.Size < 0 {
		return Answer{}, 0, errors.New("it doesn't say how long the blob is")
	}
	return a, http.StatusOK, nil
}

// request asks the registry. The caller closes the body.
func request(ctx context.Context, trip http.RoundTripper, method, url, ranges string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	req.Header.Set("Accept", accepted)
	return (&http.Client{Transport: trip}).Do(req)
}

// listening is a transport that tells when bytes of an answer's body come.
type listening struct {
	http.RoundTripper
	more func()
}

func (l listening) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = listeningBody{resp.Body, l.more}
	}
	return resp, err
}

type listeningBody struct {
	io.ReadCloser
	more func()
}

func (b listeningBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.more()
	}
	return n, err
}
