package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/imagecache"
)

// Push sends an image, for the architectures that are there of its index, to the
// nodes that are its blobs' homes, from which the others take it, and notes it
// under its reference, HOST/NAME:TAG.
func (c *Cache) Push(ctx context.Context, ref string, index v1.ImageIndex, tell func(string)) error {
	repo, ref, err := whole(ref)
	if err != nil {
		return err
	}
	pods, err := c.ready(ctx)
	if err != nil {
		return err
	}
	keys, err := c.client.CoreV1().Secrets(Namespace).Get(ctx, secretName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading the cache's token: %w", err)
	}
	blobs, digest, err := contents(index)
	if err != nil {
		return fmt.Errorf("reading image %s: %w", ref, err)
	}
	for _, b := range blobs {
		pod := home(b, pods)
		tell(fmt.Sprintf("sending %s to node %s", b.digest, pod.Spec.NodeName))
		client, done := c.nodeClient(pod.Name)
		err := put(ctx, client, repo, b, string(keys.Data[tokenKey]))
		done()
		if err != nil {
			return fmt.Errorf("sending %s to node %s: %w", b.digest, pod.Spec.NodeName, err)
		}
	}
	return c.note(ctx, ref, repo+"@"+digest)
}

// home is the node's pod at which the others look for a blob.
func home(b blob, pods []corev1.Pod) corev1.Pod {
	nodes := make([]string, len(pods))
	for i, p := range pods {
		nodes[i] = p.Spec.NodeName
	}
	first := imagecache.Homes(imagecache.Digest(b.digest), nodes)[0]
	return pods[slices.Index(nodes, first)]
}

// nodeClient talks to a node's registry.
func (c *Cache) nodeClient(pod string) (client *http.Client, done func()) {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return c.forward(ctx, Namespace, pod, imagecache.DefaultPort)
	}}
	return &http.Client{Transport: t}, t.CloseIdleConnections
}

// blob is a part of an image.
type blob struct {
	digest string
	open   func() (io.ReadCloser, error)
}

// text is a blob that is small.
func text(digest v1.Hash, b []byte) blob {
	return blob{digest.String(), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

// contents are an index's blobs, itself the last, and its digest. An index may be
// of more architectures than there are images: those who copy one keep its digest.
func contents(index v1.ImageIndex) ([]blob, string, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, "", err
	}
	var blobs []blob
	for _, d := range m.Manifests {
		if !d.MediaType.IsImage() {
			continue
		}
		img, err := index.Image(d.Digest)
		if err != nil {
			return nil, "", err
		}
		parts, err := contentsOf(img)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		blobs = append(blobs, parts...)
	}
	if len(blobs) == 0 {
		return nil, "", errors.New("no architecture's is there")
	}
	raw, err := index.RawManifest()
	if err != nil {
		return nil, "", err
	}
	digest, err := index.Digest()
	if err != nil {
		return nil, "", err
	}
	return append(blobs, text(digest, raw)), digest.String(), nil
}

// contentsOf are one architecture's blobs, its manifest the last.
func contentsOf(img v1.Image) ([]blob, error) {
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	var blobs []blob
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, blob{d.String(), l.Compressed})
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	configName, err := img.ConfigName()
	if err != nil {
		return nil, err
	}
	return append(blobs, text(configName, config), text(digest, manifest)), nil
}

// How long one blob may take on its way to a node.
const putWithin = 10 * time.Minute

// put writes one blob into a node's registry.
func put(ctx context.Context, client *http.Client, repo string, b blob, token string) error {
	ctx, cancel := context.WithTimeout(ctx, putWithin)
	defer cancel()
	r, err := b.open()
	if err != nil {
		return err
	}
	defer r.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://node/v2/"+imagecache.PathOf(repo)+"/blobs/"+b.digest, r)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return fmt.Errorf("it answers %s: %s", resp.Status, text)
	}
	return nil
}
