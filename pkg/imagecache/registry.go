package imagecache

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
)

// maxManifest bounds a manifest, as registries do
// (https://github.com/opencontainers/distribution-spec, "Pushing Manifests").
const maxManifest = 4 << 20

// RegistryHandler is the registry for the node's own runtime, which reads from
// it, and for who holds the token, who may put blobs into it too:
//
//	GET, HEAD /v2/                            it is a registry
//	GET, HEAD /v2/HOST/NAME/manifests/DIGEST  by digest only: there are no tags
//	GET, HEAD /v2/HOST/NAME/blobs/DIGEST      with Range
//	PUT       /v2/HOST/NAME/blobs/DIGEST      Authorization: Bearer TOKEN; manifests too
//
// It is to listen on the loopback.
func RegistryHandler(n *Node, token string, log *slog.Logger) http.Handler {
	r := &registryHandler{node: n, token: token, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", r.serve)
	return mux
}

type registryHandler struct {
	node  *Node
	token string
	log   *slog.Logger
}

func (h *registryHandler) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if path == "" {
		return
	}
	repo, kind, d, err := parseObjectPath(path)
	if err != nil {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", err)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		h.get(w, r, repo, kind, d)
	case http.MethodPut:
		h.put(w, r, d)
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", errors.New("this registry is read, and written to with PUT"))
	}
}

// parseObjectPath reads HOST/NAME/(manifests|blobs)/DIGEST.
func parseObjectPath(path string) (repo, kind string, d Digest, err error) {
	parts := strings.Split(path, "/")
	if len(parts) < 4 {
		return "", "", "", fmt.Errorf("%q is not HOST/NAME/manifests/DIGEST or HOST/NAME/blobs/DIGEST", path)
	}
	kind = parts[len(parts)-2]
	if kind != "manifests" && kind != "blobs" {
		return "", "", "", fmt.Errorf("%q is neither manifests nor blobs", kind)
	}
	if d, err = ParseDigest(parts[len(parts)-1]); err != nil {
		return "", "", "", err
	}
	repo = repoOf(strings.Join(parts[:len(parts)-2], "/"))
	return repo, kind, d, checkRepo(repo)
}

func (h *registryHandler) get(w http.ResponseWriter, r *http.Request, repo, kind string, d Digest) {
	blob, err := h.node.Open(r.Context(), repo, d)
	if err != nil {
		status := http.StatusBadGateway
		if errors.Is(err, ErrUnknown) || errors.Is(err, fs.ErrNotExist) {
			status = http.StatusNotFound
		}
		h.log.Warn("not to be had", "repo", repo, "blob", d, "err", err)
		refuse(w, status, "BLOB_UNKNOWN", err)
		return
	}
	defer blob.Close()
	mediaType := "application/octet-stream"
	if kind == "manifests" {
		if mediaType, err = h.mediaType(r, blob); err != nil {
			refuse(w, http.StatusBadGateway, "MANIFEST_INVALID", err)
			return
		}
	}
	first, end, partial, err := parseRange(r.Header.Get("Range"), blob.Size)
	if err != nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", blob.Size))
		refuse(w, http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", err)
		return
	}
	head := w.Header()
	head.Set("Content-Type", mediaType)
	head.Set("Docker-Content-Digest", string(d))
	head.Set("Accept-Ranges", "bytes")
	head.Set("Content-Length", strconv.FormatInt(end-first, 10))
	status := http.StatusOK
	if partial {
		head.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, end-1, blob.Size))
		status = http.StatusPartialContent
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	_ = http.NewResponseController(w).Flush()
	if err := blob.Copy(r.Context(), w, first, end); err != nil {
		h.log.Warn("cut short", "blob", d, "err", err)
		panic(http.ErrAbortHandler) // the runtime must not take what it has for the whole
	}
}

// mediaType is what a manifest says it is.
func (h *registryHandler) mediaType(r *http.Request, blob *Blob) (string, error) {
	if blob.Size > maxManifest {
		return "", fmt.Errorf("a manifest of %d bytes", blob.Size)
	}
	var text strings.Builder
	if err := blob.Copy(r.Context(), &text, 0, blob.Size); err != nil {
		return "", err
	}
	var manifest struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal([]byte(text.String()), &manifest); err != nil {
		return "", fmt.Errorf("reading the manifest: %w", err)
	}
	switch {
	case manifest.MediaType != "":
		return manifest.MediaType, nil
	case len(manifest.Manifests) > 0:
		return "application/vnd.oci.image.index.v1+json", nil
	}
	return "application/vnd.oci.image.manifest.v1+json", nil
}

func (h *registryHandler) put(w http.ResponseWriter, r *http.Request, d Digest) {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || h.token == "" || subtle.ConstantTimeCompare([]byte(given), []byte(h.token)) != 1 {
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", errors.New("writing needs the token"))
		return
	}
	if err := h.node.cfg.Store.Put(d, r.Body); err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, errDigest) {
			status = http.StatusBadRequest
		}
		refuse(w, status, "DIGEST_INVALID", err)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// parseRange reads a Range header of one range (RFC 9110, section 14.1.2), from
// first up to, and without, end. Others are answered with the whole, as the RFC
// allows.
func parseRange(header string, size int64) (first, end int64, partial bool, err error) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") {
		return 0, size, false, nil
	}
	parse := func(text string) (int64, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || strings.HasPrefix(text, "+") {
			return 0, fmt.Errorf("%q is not a range", header)
		}
		return n, nil
	}
	if from == "" { // the last bytes
		n, err := parse(to)
		if err != nil || n == 0 || size == 0 {
			return 0, 0, false, fmt.Errorf("%q is not a range of %d bytes", header, size)
		}
		return max(size-n, 0), size, true, nil
	}
	if first, err = parse(from); err != nil {
		return 0, 0, false, err
	}
	end = size
	if to != "" {
		last, err := parse(to)
		if err != nil || last < first {
			return 0, 0, false, fmt.Errorf("%q is not a range", header)
		}
		if last < size-1 {
			end = last + 1
		}
	}
	if first >= size {
		return 0, 0, false, fmt.Errorf("%q is behind the end of %d bytes", header, size)
	}
	return first, end, true, nil
}

// refuse answers with an error as registries do.
func refuse(w http.ResponseWriter, status int, code string, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": err.Error()}}})
}
