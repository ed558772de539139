package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/telepresence/telepresence/pkg/imagecache/install"
)

func (p *program) runCacheStatus(ctx context.Context, cache imageCache, _ []string) error {
	r, err := cache.Status(ctx)
	if err != nil {
		return err
	}
	if p.settings.output == "json" {
		return p.resultJSON(r)
	}
	return p.ui.result(cacheTable(r))
}

// cacheTable is a line for each node, and below it what the cache knows by name.
func cacheTable(r install.Report) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	row := func(cells ...string) { _, _ = w.Write([]byte(strings.Join(cells, "\t") + "\n")) }
	row("NODE", "READY", "BLOBS", "HELD", "FROM PEERS", "FROM ORIGIN", "HIT RATE")
	for _, n := range r.Nodes {
		ready := "yes"
		switch {
		case n.Problem != "":
			ready = "no: " + n.Problem
		case !n.Ready:
			ready = "no"
		}
		row(n.Node, ready, strconv.Itoa(n.Blobs), size(n.Bytes), size(n.FromPeers), size(n.FromOrigin), fmt.Sprintf("%.0f %%", 100*n.HitRate()))
	}
	w.Flush()
	for _, key := range slices.Sorted(maps.Keys(r.Images)) {
		b.WriteString("image " + r.Images[key] + "\n")
	}
	b.WriteString("certificates until " + r.Expires.Local().Format(time.DateOnly) + "\n")
	return b.String()
}

// size is a number of bytes for people.
func size(bytes int64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	case bytes >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%d B", bytes)
}
