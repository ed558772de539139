package imagecache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// DefaultLimit is how many bytes a store holds if nothing else is said.
const DefaultLimit = 1 << 30

// Store keeps blobs in a folder, up to a limit; the one that was used longest
// ago goes first. It is safe for concurrent use by one process.
//
// A blob on its way is in the folder "partial", and of no use to the next
// process, which doesn't know what of it is there.
type Store struct {
	dir   string
	limit int64

	mu    sync.Mutex // guards what follows
	blobs map[Digest]*held
	used  int64
}

// held is a whole blob in the store.
type held struct {
	size int64
	last time.Time
}

// OpenStore opens the store in a folder, which it makes where it is missing.
// The blobs that are there are taken by their names: each was verified before
// it got that.
func OpenStore(dir string, limit int64) (*Store, error) {
	s := &Store{dir: dir, limit: limit, blobs: make(map[Digest]*held)}
	if err := os.RemoveAll(s.partial()); err != nil {
		return nil, fmt.Errorf("clearing the store: %w", err)
	}
	for _, d := range []string{s.partial(), s.path("")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("opening the store: %w", err)
		}
	}
	entries, err := os.ReadDir(s.path(""))
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	for _, e := range entries {
		at, err := e.Info()
		d, digestErr := ParseDigest("sha256:" + e.Name())
		if err != nil || digestErr != nil {
			continue
		}
		s.blobs[d] = &held{size: at.Size(), last: at.ModTime()}
		s.used += at.Size()
	}
	s.shrinkLocked("")
	return s, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, "blobs", name) }
func (s *Store) partial() string         { return filepath.Join(s.dir, "partial") }

// Open opens a whole blob for reading. Its error is fs.ErrNotExist where there
// is none.
func (s *Store) Open(d Digest) (*os.File, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.blobs[d]
	if !ok {
		return nil, 0, fmt.Errorf("blob %s: %w", d, fs.ErrNotExist)
	}
	f, err := os.Open(s.path(d.hex()))
	if err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", d, err)
	}
	h.last = time.Now()
	return f, h.size, nil
}

// Put stores what r holds under its digest, which must be d.
func (s *Store) Put(d Digest, r io.Reader) error {
	f, err := os.CreateTemp(s.partial(), "put-*")
	if err != nil {
		return fmt.Errorf("storing %s: %w", d, err)
	}
	size, err := io.Copy(f, r)
	if err == nil {
		err = verify(f, d)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("storing %s: %w", d, err), os.Remove(f.Name()))
	}
	return s.keep(d, f.Name(), size)
}

// keep takes a verified file into the store, and lets others go for it.
func (s *Store) keep(d Digest, file string, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(file, s.path(d.hex())); err != nil {
		return fmt.Errorf("storing %s: %w", d, err)
	}
	if old, ok := s.blobs[d]; ok {
		s.used -= old.size
	}
	s.blobs[d] = &held{size: size, last: time.Now()}
	s.used += size
	s.shrinkLocked(d)
	return nil
}

// shrinkLocked removes blobs until the rest fits; spared stays.
func (s *Store) shrinkLocked(spared Digest) {
	for s.used > s.limit {
		var oldest Digest
		for d, h := range s.blobs {
			if d != spared && (oldest == "" || h.last.Before(s.blobs[oldest].last)) {
				oldest = d
			}
		}
		if oldest == "" {
			return
		}
		s.used -= s.blobs[oldest].size
		delete(s.blobs, oldest)
		_ = os.Remove(s.path(oldest.hex())) // whoever reads it keeps it open
	}
}

// Held is the number of blobs and of bytes in the store.
func (s *Store) Held() (blobs int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.blobs), s.used
}

// errDigest says that bytes are not those of their digest.
var errDigest = errors.New("the bytes are not those of the digest")

// verify reads a file from its start and compares its digest.
func verify(f *os.File, d Digest) error {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.hex() {
		return fmt.Errorf("%w: got sha256:%s", errDigest, got)
	}
	return nil
}

// partialBlob is a blob on its way into the store. Safe for concurrent use.
type partialBlob struct {
	digest Digest
	size   int64
	file   *os.File

	mu   sync.Mutex // guards what follows
	have []bool     // by chunk
	from []string   // by chunk: who sent it
}

// begin makes room for a blob of size bytes.
func (s *Store) begin(d Digest, size int64) (*partialBlob, error) {
	f, err := os.CreateTemp(s.partial(), "blob-*")
	if err != nil {
		return nil, fmt.Errorf("storing %s: %w", d, err)
	}
	n := chunks(size)
	return &partialBlob{digest: d, size: size, file: f, have: make([]bool, n), from: make([]string, n)}, nil
}

// write keeps a chunk that came from a node, or from the origin ("").
func (p *partialBlob) write(index int, data []byte, from string) error {
	if index < 0 || index >= len(p.have) || int64(len(data)) != chunkLength(p.size, index) {
		return fmt.Errorf("chunk %d of %s: %d bytes don't fit there", index, p.digest, len(data))
	}
	if _, err := p.file.WriteAt(data, int64(index)*ChunkSize); err != nil {
		return fmt.Errorf("chunk %d of %s: %w", index, p.digest, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have[index], p.from[index] = true, from
	return nil
}

// read is a chunk that is there, or nothing.
func (p *partialBlob) read(index int) ([]byte, bool) {
	p.mu.Lock()
	ok := index >= 0 && index < len(p.have) && p.have[index]
	p.mu.Unlock()
	if !ok {
		return nil, false
	}
	data := make([]byte, chunkLength(p.size, index))
	if _, err := p.file.ReadAt(data, int64(index)*ChunkSize); err != nil {
		return nil, false
	}
	return data, true
}

// missing is the first chunk that isn't there: their number when all are.
func (p *partialBlob) missing() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.have, false); i >= 0 {
		return i
	}
	return len(p.have)
}

// sources are who sent the chunks.
func (p *partialBlob) sources() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.from)
}

// drop forgets what has come.
func (p *partialBlob) drop() error {
	return errors.Join(p.file.Close(), os.Remove(p.file.Name()))
}
