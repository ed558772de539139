package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Index joins images of one thing for several architectures.
func Index(imgs ...v1.Image) (v1.ImageIndex, error) {
	adds := make([]mutate.IndexAddendum, 0, len(imgs))
	for _, img := range imgs {
		platform, err := platformOf(img)
		if err != nil {
			return nil, err
		}
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...), nil
}

func platformOf(img v1.Image) (*v1.Platform, error) {
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	return &v1.Platform{OS: cfg.OS, Architecture: cfg.Architecture}, nil
}

// WriteArchive writes imgs, which are one thing for several architectures, as a tar under the name ref. It is both an
// OCI layout, with all of them ("ctr images import", "podman load"), and a docker archive, with the one for this
// machine's architecture if there is one, else the first ("docker load"): that format has room for one only.
func WriteArchive(w io.Writer, ref string, imgs ...v1.Image) error {
	if len(imgs) == 0 {
		return errors.New("an archive needs an image")
	}
	index, err := Index(imgs...)
	if err != nil {
		return err
	}
	a := &archive{tw: tar.NewWriter(w), has: make(map[string]bool)}
	top, err := a.addIndex(index)
	if err != nil {
		return err
	}
	top.Annotations = map[string]string{
		"io.containerd.image.name":          ref,
		"org.opencontainers.image.ref.name": ref[strings.LastIndexByte(ref, ':')+1:],
	}
	a.addJSON("index.json", v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{top}})
	a.addJSON("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
	forDocker, err := dockerManifest(ref, pick(imgs))
	if err != nil {
		return err
	}
	a.addJSON("manifest.json", forDocker)
	if a.err != nil {
		return fmt.Errorf("writing the archive of %s: %w", ref, a.err)
	}
	return a.tw.Close()
}

// pick chooses the image for this machine.
func pick(imgs []v1.Image) v1.Image {
	i := slices.IndexFunc(imgs, func(img v1.Image) bool {
		p, err := platformOf(img)
		return err == nil && p.Architecture == runtime.GOARCH
	})
	return imgs[max(i, 0)]
}

// dockerManifest is the manifest.json of a docker archive.
func dockerManifest(ref string, img v1.Image) (any, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	e := entry{Config: blobPath(m.Config.Digest), RepoTags: []string{strings.TrimPrefix(ref, "docker.io/")}}
	for _, l := range m.Layers {
		e.Layers = append(e.Layers, blobPath(l.Digest))
	}
	return []entry{e}, nil
}

func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// archive is a tar under way. After an error it does nothing more.
type archive struct {
	tw  *tar.Writer
	has map[string]bool
	err error
}

func (a *archive) add(name string, content []byte) {
	if a.err != nil || a.has[name] {
		return
	}
	a.has[name] = true
	a.err = a.tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), Format: tar.FormatUSTAR,
	})
	if a.err == nil {
		_, a.err = io.Copy(a.tw, bytes.NewReader(content))
	}
}

func (a *archive) addJSON(name string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		a.err = errors.Join(a.err, err)
	}
	a.add(name, text)
}

// addIndex adds the blobs of an index and returns its descriptor.
func (a *archive) addIndex(index v1.ImageIndex) (v1.Descriptor, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, d := range m.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			return v1.Descriptor{}, err
		}
		if err := a.addImage(d.Digest, img); err != nil {
			return v1.Descriptor{}, err
		}
	}
	raw, err := index.RawManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	digest, err := index.Digest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	a.add(blobPath(digest), raw)
	return v1.Descriptor{MediaType: types.OCIImageIndex, Digest: digest, Size: int64(len(raw))}, nil
}

// addImage adds the blobs of an image.
func (a *archive) addImage(digest v1.Hash, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if err := a.addLayer(l); err != nil {
			return err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	configName, err := img.ConfigName()
	if err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	a.add(blobPath(configName), config)
	a.add(blobPath(digest), manifest)
	return nil
}

func (a *archive) addLayer(l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	a.add(blobPath(digest), content)
	return nil
}
