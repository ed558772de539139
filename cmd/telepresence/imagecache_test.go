package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

func (f *fakeCache) Enable(ctx context.Context, o install.Options, tell func(string)) error {
	if o.Load != nil {
		far := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "far"}, Spec: corev1.NodeSpec{ProviderID: "aws:///a/i-1"}}
		if err := o.Load(ctx, []corev1.Node{far}, tell); err != nil {
			return err
		}
	}
	f.asked = append(f.asked, fmt.Sprintf("enable %s %v %v", o.Image, o.Repos, o.PullNever))
	return nil
}

func (f *fakeCache) Disable(context.Context) error {
	f.asked = append(f.asked, "disable")
	return nil
}

func (f *fakeCache) Push(_ context.Context, ref string, index v1.ImageIndex, _ func(string)) error {
	m, err := index.IndexManifest()
	if err != nil {
		return err
	}
	asked := "push " + ref
	for _, d := range m.Manifests {
		asked += " " + d.Platform.Architecture
		img, err := index.Image(d.Digest)
		if err != nil {
			return err
		}
		if err := validate.Image(img); err != nil {
			return err
		}
	}
	f.asked = append(f.asked, asked)
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
	archive, several := filepath.Join(t.TempDir(), "agent.tar"), filepath.Join(t.TempDir(), "several.tar")
	writeArchive(t, archive, "amd64")
	writeArchive(t, several, "amd64", "arm64")
	saved := filepath.Join(t.TempDir(), "saved.tar")
	saveArchive(t, saved)
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
		{"imagecache push " + archive, false, 0, "push r.example.com/tp/agent:1 amd64", "T: the image cache has r.example.com/tp/agent:1\n"},
		{"imagecache push " + several, false, 0, "push r.example.com/tp/agent:1 amd64 arm64", "T: the image cache has r.example.com/tp/agent:1\n"},
		{"imagecache push " + saved, false, 0, "push r.example.com/tp/agent:1 arm64", "T: the image cache has r.example.com/tp/agent:1\n"},
		{"imagecache push " + archive + ".tar", false, 255, "", "T: reading image archive " + archive + ".tar: open " + archive + ".tar: no such file or directory\n"},
		{"imagecache status", false, 0, "", `NODE   READY                    BLOBS   HELD      FROM PEERS   FROM ORIGIN   HIT RATE
one    yes                      3       5.0 MiB   2.0 KiB      0 B           50 %
two    no: it does not answer   0       0 B       0 B          0 B           0 %
image r.example.com/tp/agent@sha256:12
certificates until 2030-01-02
`},
		{"imagecache enable --yes --image " + archive + " --load-with true", false, 0, "enable r.example.com/tp/agent:1 [r.example.com/tp/telepresence-agent] false",
			"T: loading the image into the cluster\nT: the image cache is ready on every node, for r.example.com/tp/telepresence-agent\n"},
		{"imagecache enable --yes --image " + archive + " --load", false, 255, "",
			"T: node far (aws:///a/i-1) is not of kind, k3d, minikube or Docker Desktop, whose nodes an image can be loaded into\n" +
				"T: hint: --load-with COMMAND loads it by a command of yours; --image names it in a registry\n"},
		{"imagecache enable --yes --image " + archive, false, 2, "",
			"T: --image " + archive + " is a file, which nodes can't pull\nT: hint: --load loads it into their store\n"},
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

// TestImageCacheStatusJSON holds the names that scripts read.
func TestImageCacheStatusJSON(t *testing.T) {
	t.Parallel()
	c := newCall(t)
	c.connectCache = func(k8s.Config) (imageCache, error) { return &fakeCache{}, nil }
	if code := c.run([]string{"imagecache", "status", "--output", "json"}); code != 0 {
		t.Fatalf("exit code %d: %s", code, &c.stderr)
	}
	var got struct {
		Nodes              []map[string]any
		Images             map[string]string
		CertificateExpires time.Time
	}
	if err := json.Unmarshal(c.stderr.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"node": "one", "ready": true, "blobs": 3.0, "bytes": 5242880.0, "peers": 0.0, "bytesFromPeers": 2048.0, "bytesFromOrigin": 0.0,
			"bytesToPeers": 0.0, "bytesToRuntime": 0.0, "hits": 1.0, "misses": 1.0, "shunned": 0.0},
		{"node": "two", "ready": false, "problem": "it does not answer", "blobs": 0.0, "bytes": 0.0, "peers": 0.0, "bytesFromPeers": 0.0,
			"bytesFromOrigin": 0.0, "bytesToPeers": 0.0, "bytesToRuntime": 0.0, "hits": 0.0, "misses": 0.0, "shunned": 0.0},
	}
	if !reflect.DeepEqual(got.Nodes, want) {
		t.Errorf("nodes are\n%v, want\n%v", got.Nodes, want)
	}
	if got.Images["a"] != "r.example.com/tp/agent@sha256:12" || got.CertificateExpires.Year() != 2030 {
		t.Errorf("it says %s", &c.stderr)
	}
}

// imageFor is an image for an architecture.
func imageFor(t *testing.T, architecture string) v1.Image {
	t.Helper()
	img, err := images.Build(images.Spec{
		Architecture: architecture, Files: []images.File{{Path: "/x", Mode: 0o755, Content: []byte(architecture)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// writeArchive writes an image archive as "make image" does.
func writeArchive(t *testing.T, path string, architectures ...string) {
	t.Helper()
	var imgs []v1.Image
	for _, a := range architectures {
		imgs = append(imgs, imageFor(t, a))
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := images.WriteArchive(f, "r.example.com/tp/agent:1", imgs...); err != nil {
		t.Fatal(err)
	}
}

// saveArchive writes one as "docker save" did before it wrote OCI layouts.
func saveArchive(t *testing.T, path string) {
	t.Helper()
	ref, err := name.NewTag("r.example.com/tp/agent:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(path, ref, imageFor(t, "arm64")); err != nil {
		t.Fatal(err)
	}
}
