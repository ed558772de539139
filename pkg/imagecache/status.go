package imagecache

import (
	"fmt"
	"net/http"
)

// The ports of a node: the registry's, on the loopback, and the peers'.
const (
	DefaultPort     = 5780
	DefaultPeerPort = 5781
)

// Status is what a node tells of itself.
type Status struct {
	Node  string `json:"node"`
	Blobs int    `json:"blobs"`
	Bytes int64  `json:"bytes"`
	Peers int    `json:"peers"` // other nodes that are alive
	Counts
}

// HitRate is the part of the runtime's questions whose answer was there, 0 to 1.
func (s Status) HitRate() float64 {
	if s.Hits+s.Misses == 0 {
		return 0
	}
	return float64(s.Hits) / float64(s.Hits+s.Misses)
}

// Status is the node's now.
func (n *Node) Status() Status {
	blobs, bytes := n.cfg.Store.Held()
	return Status{Node: n.cfg.Name, Blobs: blobs, Bytes: bytes, Peers: len(n.cfg.Peers()), Counts: n.Counts()}
}

// MetricsHandler serves the node's figures in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func MetricsHandler(n *Node) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := n.Status()
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		for _, m := range []struct {
			name, kind, help string
			value            int64
		}{
			{"blobs", "gauge", "Blobs held.", int64(s.Blobs)},
			{"bytes", "gauge", "Bytes held.", s.Bytes},
			{"peers", "gauge", "Other nodes that are alive.", int64(s.Peers)},
			{"received_from_peers_bytes_total", "counter", "Bytes fetched from other nodes.", s.FromPeers},
			{"received_from_origin_bytes_total", "counter", "Bytes fetched from registries.", s.FromOrigin},
			{"sent_to_peers_bytes_total", "counter", "Bytes served to other nodes.", s.ToPeers},
			{"sent_to_runtime_bytes_total", "counter", "Bytes served to the node's container runtime.", s.ToRuntime},
			{"hits_total", "counter", "Blobs that were here when the runtime asked.", s.Hits},
			{"misses_total", "counter", "Blobs that had to be fetched.", s.Misses},
			{"shunned_total", "counter", "Times that a peer was shunned.", s.Shunned},
		} {
			const prefix = "telepresence_imagecache_"
			fmt.Fprintf(w, "# HELP %s%s %s\n# TYPE %s%s %s\n%s%s %d\n", prefix, m.name, m.help, prefix, m.name, m.kind, prefix, m.name, m.value)
		}
	})
}
