// Package images makes container images of one static binary on scratch: without a docker daemon, and the same bytes
// each time.
package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// DefaultRegistry is where the agent's image lies, if not said otherwise.
	DefaultRegistry = "docker.io/telepresence"
	// AgentName is the name of the agent's image in its registry.
	AgentName = "telepresence-agent"
	// AgentPath is where the agent lies in its image.
	AgentPath = "/telepresence-agent"
	// CacheName is the name of the image cache's image in its registry.
	CacheName = "telepresence-imagecache"
	// CachePath is where the node program lies in the image cache's image.
	CachePath = "/telepresence-imagecache"
)

// AgentRef is the reference of the agent's image of a version; registry "" is DefaultRegistry. The version may begin
// with a "v", which the tag does not; a "+" in it becomes a "-", since tags have none.
func AgentRef(registry, version string) string { return ref(registry, AgentName, version) }

// CacheRef is the reference of the image cache's image, as AgentRef is of the agent's.
func CacheRef(registry, version string) string { return ref(registry, CacheName, version) }

func ref(registry, name, version string) string {
	if registry == "" {
		registry = DefaultRegistry
	}
	tag := strings.ReplaceAll(strings.TrimPrefix(version, "v"), "+", "-")
	return strings.TrimSuffix(registry, "/") + "/" + name + ":" + tag
}

// File is a file of an image.
type File struct {
	// Path is absolute.
	Path string
	// Mode is the permission bits. The owner is root.
	Mode int64
	// Content is all of it.
	Content []byte
}

// Spec says what an image is.
type Spec struct {
	// Architecture is Go's name of it ("amd64", "arm64"); the system is Linux.
	Architecture string
	// Files are what the image holds, in one layer.
	Files []File
	// Entrypoint is the command; Env its environment, in "K=V" form.
	Entrypoint, Env []string
	// Labels are the image's.
	Labels map[string]string
	// Hasty says that the image is made and used on one machine: it is compressed little.
	Hasty bool
}

// Build makes an image. The same Spec gives the same bytes: nothing in it is of now.
func Build(spec Spec) (v1.Image, error) {
	if spec.Architecture == "" {
		return nil, errors.New("an image needs an architecture")
	}
	content, err := layer(spec.Files)
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithCompressionLevel(spec.compression()), tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, l)
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.Architecture, cfg.OS = spec.Architecture, "linux"
	cfg.Config = v1.Config{Entrypoint: spec.Entrypoint, Env: spec.Env, Labels: spec.Labels}
	return mutate.ConfigFile(img, cfg)
}

func (s Spec) compression() int {
	if s.Hasty {
		return gzip.BestSpeed
	}
	return gzip.BestCompression
}

// layer is the tar of files, each parent directory before what lies in it.
func layer(files []File) ([]byte, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	made := map[string]bool{"/": true}
	for _, f := range sorted {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			return nil, fmt.Errorf("%q is not a clean absolute path", f.Path)
		}
		if err := mkdirs(tw, path.Dir(f.Path), made); err != nil {
			return nil, err
		}
		err := tw.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: f.Path[1:], Mode: f.Mode, Size: int64(len(f.Content)), Format: tar.FormatUSTAR,
		})
		if err != nil {
			return nil, fmt.Errorf("adding %s: %w", f.Path, err)
		}
		if _, err := tw.Write(f.Content); err != nil {
			return nil, fmt.Errorf("adding %s: %w", f.Path, err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func mkdirs(tw *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	made[dir] = true
	if err := mkdirs(tw, path.Dir(dir), made); err != nil {
		return err
	}
	return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: 0o755, Format: tar.FormatUSTAR})
}

// Agent makes the agent's image for an architecture of its binary. Its entry point is the agent's.
func Agent(architecture string, binary []byte) (v1.Image, error) {
	return Build(Spec{
		Architecture: architecture,
		Files:        []File{{Path: AgentPath, Mode: 0o755, Content: binary}},
		Entrypoint:   []string{AgentPath},
		Labels:       map[string]string{"org.opencontainers.image.source": "https://github.com/telepresence/telepresence"},
	})
}

// Cache makes the image cache's image: the node program, and the agent beside it, so that its DaemonSet brings both to
// each node.
func Cache(architecture string, node, agent []byte) (v1.Image, error) {
	return Build(Spec{
		Architecture: architecture,
		Files: []File{
			{Path: CachePath, Mode: 0o755, Content: node},
			{Path: AgentPath, Mode: 0o755, Content: agent},
		},
		Entrypoint: []string{CachePath},
		Labels:     map[string]string{"org.opencontainers.image.source": "https://github.com/telepresence/telepresence"},
	})
}
