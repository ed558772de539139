package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/telepresence/telepresence/images"
	"github.com/telepresence/telepresence/pkg/imagecache"
	"github.com/telepresence/telepresence/pkg/imagecache/install"
	"github.com/telepresence/telepresence/pkg/k8s"
)

// fakeCache notes what is asked of it.
type fakeCache struct {
	other bool
	asked []string
}

func (f *fakeCache) StepAside(context.Context) error {
	if f.other {
		return fmt.Errorf("%w: Spegel", install.ErrOther)
	}
	return nil
}

func (f *fakeCache) Enable(_ context.Context, o install.Options, _ func(string)) error {
	f.asked = append(f.asked, fmt.Sprintf("enable %s %v %v", o.Image, o.Repos, o.PullNever))
	return nil
}

func (f *fakeCache) Disable(context.Context) error {
	f.asked = append(f.asked, "disable")
	return nil
}

func (f *fakeCache) Push(_ context.Context, ref string, img v1.Image, _ func(string)) error {
	if _, err := img.Digest(); err != nil {
		return err
	}
	f.asked = append(f.asked, "push "+ref)
	return nil
}

func (f *fakeCache) Status(context.Context) (install.Report, error) {
	good := imagecache.Status{Node: "one", Blobs: 3, Bytes: 5 << 20, Counts: imagecache.Counts{FromPeers: 2048, Hits: 1, Misses: 1}}
	return install.Report{
		Nodes: []install.NodeStatus{
			{Status: good, Ready: true},
			{Status: imagecache.Status{Node: "two"}, Problem: "it does not answer"},
		},
		Images:  map[string]string{"a": "r.example.com/tp/agent@sha256:12"},
		Expires: time.Date(2030, 1, 2, 3, 0, 0, 0, time.Local),
	}, nil
}

// TestImageCache checks what is asked of the cache, and what is said.
func TestImageCache(t *testing.T) {
	t.Parallel()
	archive := filepath.Join(t.TempDir(), "agent.tar")
	writeArchive(t, archive)
	const registry = "TELEPRESENCE_REGISTRY=r.example.com/tp"
	for _, tt := range []struct {
		line  string
		other bool
		code  int
		asked string
		want  string
	}{
		{"imagecache enable --yes", false, 0, "enable r.example.com/tp/telepresence-imagecache:dev [r.example.com/tp/telepresence-agent] false",
			"T: the image cache is ready on every node, for r.example.com/tp/telepresence-agent\n"},
		{"imagecache enable -y --image i:1 --repo a/b --repo c/d --pull-never", false, 0, "enable i:1 [a/b c/d] true",
			"T: the image cache is ready on every node, for a/b, c/d\n"},
		{"imagecache enable", false, 2, "", "T: " + strings.ReplaceAll(cacheNeeds, "\n", "\nT: ") + "\nT: nothing was done\nT: hint: --yes does it without asking\n"},
		{"imagecache enable --yes", true, 0, "", "T: the cluster shares images between its nodes already: Spegel: there is nothing to do\n"},
		{"imagecache disable", false, 0, "disable", "T: taking the image cache away\nT: the image cache is gone\n"},
		{"imagecache push " + archive, false, 0, "push r.example.com/tp/agent:1", "T: the image cache has r.example.com/tp/agent:1\n"},
		{"imagecache push " + archive + ".tar", false, 255, "", "T: reading image archive " + archive + ".tar: open " + archive + ".tar: no such file or directory\n"},
		{"imagecache status", false, 0, "", `NODE   READY                    BLOBS   HELD      FROM PEERS   FROM ORIGIN   HIT RATE
one    yes                      3       5.0 MiB   2.0 KiB      0 B           50 %
two    no: it does not answer   0       0 B       0 B          0 B           0 %
image r.example.com/tp/agent@sha256:12
certificates until 2030-01-02
`},
		{"imagecache", false, 2, "", "T: imagecache wants a sub-command: enable, status, push or disable\nT: hint: see telepresence imagecache --help\n"},
		{"imagecache enabel", false, 2, "", "T: unexpected argument \"enabel\"\nT: hint: the nearest sub-command is enable\n"},
		{"imagecache push a b", false, 2, "", "T: unexpected argument \"b\"\nT: hint: see telepresence imagecache push --help\n"},
	} {
		c, f := newCall(t, registry), &fakeCache{other: tt.other}
		c.connectCache = func(k8s.Config) (imageCache, error) { return f, nil }
		code := c.run(strings.Fields(tt.line))
		if code != tt.code || strings.Join(f.asked, "\n") != tt.asked || c.stderr.String() != tt.want {
			t.Errorf("%s: exit code %d, asked %q\n got %q\nwant %q", tt.line, code, f.asked, &c.stderr, tt.want)
		}
	}
}

// writeArchive writes an image archive as "make image" does.
func writeArchive(t *testing.T, path string) {
	t.Helper()
	img, err := images.Build(images.Spec{Architecture: "amd64", Files: []images.File{{Path: "/x", Mode: 0o755, Content: []byte("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := images.WriteArchive(f, "r.example.com/tp/agent:1", img); err != nil {
		t.Fatal(err)
	}
}
