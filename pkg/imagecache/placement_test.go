package imagecache

import (
	"fmt"
	"slices"
	"testing"
)

// simulate places an image of n chunks on nodes, and returns how many chunks
// each owns.
func simulate(nodes []string, n int) map[string]int {
	owned := make(map[string]int)
	for i := range n {
		owned[askingOrder(Chunk{Blob: "sha256:simulated", Index: i}, nodes)[0]]++
	}
	return owned
}

func nodeNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("node-%04d", i)
	}
	return names
}

// Each chunk has one owner, on which all nodes agree in whatever order they know
// of each other, so that each byte leaves the origin once; and the work is
// spread.
func TestPlacement(t *testing.T) {
	t.Parallel()
	const imageChunks = 42
	for _, size := range []int{8, 100, 1000} {
		nodes := nodeNames(size)
		owned := simulate(nodes, imageChunks)
		shuffled := slices.Clone(nodes)
		slices.Reverse(shuffled)
		if other := simulate(shuffled, imageChunks); fmt.Sprint(other) != fmt.Sprint(owned) {
			t.Errorf("%d nodes don't agree", size)
		}
		sum, most := 0, 0
		for _, n := range owned {
			sum, most = sum+n, max(most, n)
		}
		if sum != imageChunks {
			t.Errorf("%d nodes fetch %d chunks of %d from the origin", size, sum, imageChunks)
		}
		if home := Homes("sha256:simulated", nodes)[0]; owned[home] > 0 {
			t.Errorf("of %d nodes the blob's home owns %d chunks", size, owned[home])
		}
		if fair := (imageChunks + size - 1) / size; most > 4*fair {
			t.Errorf("of %d nodes one owns %d chunks, where %d would be even", size, most, fair)
		}
		t.Logf("%d nodes: %d own a chunk, at most %d", size, len(owned), most)
	}
}

// A node that leaves moves its own chunks and no others.
func TestLeaving(t *testing.T) {
	t.Parallel()
	const blobChunks = 300
	for _, size := range []int{8, 100, 1000} {
		nodes := nodeNames(size)
		moved, own := 0, 0
		for i := range blobChunks {
			c := Chunk{Blob: "sha256:simulated", Index: i}
			before, after := Owners(c, nodes), Owners(c, nodes[1:])
			if before[0] == nodes[0] {
				own++
			}
			if before[0] != after[0] {
				moved++
			}
			if want := slices.DeleteFunc(before, func(n string) bool { return n == nodes[0] }); !slices.Equal(want, after) {
				t.Fatalf("%d nodes: the order of chunk %d changed beyond the one who left", size, i)
			}
		}
		if moved != own {
			t.Errorf("%d nodes: %d chunks moved where the leaver owned %d", size, moved, own)
		}
		t.Logf("%d nodes: %d of %d chunks moved", size, moved, blobChunks)
	}
}

// Alone, a node owns all chunks although it is the home of all blobs.
func TestPlacementAlone(t *testing.T) {
	t.Parallel()
	if got := askingOrder(Chunk{Blob: "sha256:simulated"}, []string{"a"}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("the order is %v", got)
	}
}
