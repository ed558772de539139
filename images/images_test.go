package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestRef(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ registry, version, want string }{
		{"", "v1.2.3", "docker.io/telepresence/telepresence-agent:1.2.3"},
		{"", "dev", "docker.io/telepresence/telepresence-agent:dev"},
		{"localhost:5000/x/", "v2.0.0-rc.1+dirty", "localhost:5000/x/telepresence-agent:2.0.0-rc.1-dirty"},
	} {
		got := AgentRef(tt.registry, tt.version)
		if got != tt.want {
			t.Errorf("AgentRef(%q, %q) = %s, want %s", tt.registry, tt.version, got, tt.want)
		}
		if _, err := name.ParseReference(got); err != nil {
			t.Error(err)
		}
	}
	if got, want := CacheRef("", "v1"), "docker.io/telepresence/telepresence-imagecache:1"; got != want {
		t.Errorf("CacheRef: %s, want %s", got, want)
	}
}

func testSpec(arch string) Spec {
	return Spec{
		Architecture: arch,
		Files: []File{
			{Path: "/usr/bin/app", Mode: 0o755, Content: []byte("binary for " + arch)},
			{Path: "/etc/app.conf", Mode: 0o644, Content: []byte("key=value\n")},
		},
		Entrypoint: []string{"/usr/bin/app"},
		Env:        []string{"GREETING=hello world"},
		Labels:     map[string]string{"who": "test"},
	}
}

func build(t *testing.T, spec Spec) v1.Image {
	t.Helper()
	img, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestBuild(t *testing.T) {
	t.Parallel()
	img := build(t, testSpec("arm64"))
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.OS != "linux" || cfg.Architecture != "arm64" || !cfg.Created.IsZero() ||
		!slices.Equal(cfg.Config.Entrypoint, []string{"/usr/bin/app"}) || !slices.Equal(cfg.Config.Env, []string{"GREETING=hello world"}) {
		t.Errorf("config: %+v", cfg)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %o %d:%d %d", h.Name, h.Mode, h.Uid, h.Gid, h.ModTime.Unix()))
	}
	want := []string{"etc/ 755 0:0 0", "etc/app.conf 644 0:0 0", "usr/ 755 0:0 0", "usr/bin/ 755 0:0 0", "usr/bin/app 755 0:0 0"}
	if !slices.Equal(got, want) {
		t.Errorf("layer: %q, want %q", got, want)
	}
}

func TestBuildErrors(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]Spec{
		"no architecture": {},
		"relative path":   {Architecture: "amd64", Files: []File{{Path: "app"}}},
		"unclean path":    {Architecture: "amd64", Files: []File{{Path: "/a/../app"}}},
	} {
		if _, err := Build(spec); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
	if err := WriteArchive(io.Discard, "x:1"); err == nil {
		t.Error("an archive without an image: want an error")
	}
}

func archiveOf(t *testing.T, ref string, specs ...Spec) []byte {
	t.Helper()
	var imgs []v1.Image
	for _, s := range specs {
		imgs = append(imgs, build(t, s))
	}
	var buf bytes.Buffer
	if err := WriteArchive(&buf, ref, imgs...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestArchiveIsReproducible(t *testing.T) {
	t.Parallel()
	const ref = "example.com/app:1"
	first := archiveOf(t, ref, testSpec("amd64"), testSpec("arm64"))
	turned := testSpec("amd64")
	slices.Reverse(turned.Files)
	second := archiveOf(t, ref, turned, testSpec("arm64"))
	if !bytes.Equal(first, second) {
		t.Error("the same images give other bytes")
	}
	if other := archiveOf(t, ref, testSpec("arm64")); bytes.Equal(first, other) {
		t.Error("other images give the same bytes")
	}
}

// TestArchiveAsDocker reads an archive as "docker load" does.
func TestArchiveAsDocker(t *testing.T) {
	t.Parallel()
	const ref = "docker.io/telepresence/app:1"
	path := filepath.Join(t.TempDir(), "app.tar")
	if err := os.WriteFile(path, archiveOf(t, ref, testSpec("arm64"), testSpec("amd64")), 0o600); err != nil {
		t.Fatal(err)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) })
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"telepresence/app:1"}) {
		t.Errorf("manifest: %+v", manifest)
	}
	img, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
}

// TestArchiveAsOCI reads an archive as "ctr images import" does.
func TestArchiveAsOCI(t *testing.T) {
	t.Parallel()
	const ref = "docker.io/telepresence/app:1"
	dir := t.TempDir()
	for tr := tar.NewReader(bytes.NewReader(archiveOf(t, ref, testSpec("amd64"), testSpec("arm64")))); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := top.IndexManifest()
	if err != nil || len(m.Manifests) != 1 || m.Manifests[0].Annotations["io.containerd.image.name"] != ref {
		t.Fatalf("index: %+v, %v", m, err)
	}
	index, err := top.ImageIndex(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	inner, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, d := range inner.Manifests {
		platforms = append(platforms, d.Platform.String())
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(platforms, want) {
		t.Errorf("platforms: %v, want %v", platforms, want)
	}
}
