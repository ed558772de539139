package imagecache

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
)

// ChunkSize is how many bytes are fetched, and owned, together. A power of two:
// the last chunk of a blob is shorter.
const ChunkSize = 1 << 20

// Digest names a blob by its content: "sha256:" and 64 hexadecimal digits.
type Digest string

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ParseDigest reads a digest. Only sha256 is known, which is what registries and
// runtimes use.
func ParseDigest(text string) (Digest, error) {
	if !digestForm.MatchString(text) {
		return "", fmt.Errorf("%q is not a sha256 digest", text)
	}
	return Digest(text), nil
}

// hex is the digest without its algorithm: a file's name.
func (d Digest) hex() string { return string(d[len("sha256:"):]) }

// Chunk is a part of a blob: ChunkSize bytes from Index*ChunkSize on.
type Chunk struct {
	Blob  Digest
	Index int
}

// chunks is the number of chunks in so many bytes. An empty blob has none.
func chunks(size int64) int { return int((size + ChunkSize - 1) / ChunkSize) }

// chunkLength is the number of bytes in one chunk of a blob of size bytes.
func chunkLength(size int64, index int) int64 {
	return min(ChunkSize, size-int64(index)*ChunkSize)
}

// Owners are the nodes in the order in which they are asked for a chunk, by
// rendezvous hashing: each node's weight is a hash of its name and the chunk, so
// that all who know of the same nodes agree without a word, and a node that
// leaves moves only the chunks that were its own.
// (Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996.)
func Owners(c Chunk, nodes []string) []string {
	type weighed struct {
		node   string
		weight uint64
	}
	list := make([]weighed, len(nodes))
	for i, n := range nodes {
		list[i] = weighed{n, weight(c, n)}
	}
	slices.SortFunc(list, func(a, b weighed) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.node, b.node))
	})
	names := make([]string, len(list))
	for i, w := range list {
		names[i] = w.node
	}
	return names
}

// askingOrder is Owners with the blob's home behind all others: what was pushed
// leaves the home's link once for each chunk's owner, and not as an owner's too,
// to everybody.
func askingOrder(c Chunk, nodes []string) []string {
	order := Owners(c, nodes)
	home := Homes(c.Blob, nodes)[0]
	return append(slices.DeleteFunc(order, func(n string) bool { return n == home }), home)
}

// Homes are the nodes at which a blob is looked for before the origin is asked,
// the first of them the one that it is pushed to: what a push brought is nowhere
// else yet.
func Homes(d Digest, nodes []string) []string {
	const homes = 2 // the second is the first's heir, should that leave
	order := Owners(Chunk{Blob: d, Index: -1}, nodes)
	return order[:min(homes, len(order))]
}

func weight(c Chunk, node string) uint64 {
	h := sha256.New()
	fmt.Fprintf(h, "%s/%d/%s", c.Blob, c.Index, node)
	return binary.BigEndian.Uint64(h.Sum(nil))
}
