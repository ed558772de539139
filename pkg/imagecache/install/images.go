package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	reference "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/imagecache"
)

// Forward connects to a port on the loopback of a pod's network namespace, here
// the node's.
type Forward func(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error)

// Push sends an image to the nodes that are its blobs' homes, from which the others
// take it, and notes it
// under its reference, HOST/NAME:TAG.
func (c *Cache) Push(ctx context.Context, ref string, img v1.Image, tell func(string)) error {
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
	blobs, digest, err := contents(img)
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

// whole is a reference as all parts of it say it, HOST/NAME:TAG, and its
// repository: "telepresence/agent:1" means Docker Hub's.
func whole(ref string) (repo, full string, err error) {
	tag, err := reference.NewTag(ref)
	if err != nil {
		return "", "", fmt.Errorf("%q is not HOST/NAME:TAG: %w", ref, err)
	}
	host := tag.RegistryStr()
	if host == reference.DefaultRegistry {
		host = "docker.io"
	}
	repo = host + "/" + tag.RepositoryStr()
	return repo, repo + ":" + tag.TagStr(), nil
}

// ready are the nodes' pods that serve.
func (c *Cache) ready(ctx context.Context) ([]corev1.Pod, error) {
	list, err := c.client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: label + "=" + name})
	if err != nil {
		return nil, fmt.Errorf("listing the cache's nodes: %w", err)
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
	})
	if len(pods) == 0 {
		return nil, errNotEnabled
	}
	return pods, nil
}

// errNotEnabled says that there is no cache to be used.
var errNotEnabled = errors.New("the image cache is ready on no node: telepresence imagecache enable")

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

// contents are an image's blobs, the manifest last, and the manifest's digest.
func contents(img v1.Image) ([]blob, string, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, "", err
	}
	var blobs []blob
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return nil, "", err
		}
		blobs = append(blobs, blob{d.String(), l.Compressed})
	}
	text := func(b []byte) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(b))), nil }
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, "", err
	}
	configName, err := img.ConfigName()
	if err != nil {
		return nil, "", err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, "", err
	}
	return append(blobs, blob{configName.String(), text(config)}, blob{digest.String(), text(manifest)}), digest.String(), nil
}

// put writes one blob into a node's registry.
func put(ctx context.Context, client *http.Client, repo string, b blob, token string) error {
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

// key is a reference as a key of a ConfigMap.
func key(ref string) string { return strings.NewReplacer("/", "_", ":", "_").Replace(ref) }

// note writes down that the cache has an image.
func (c *Cache) note(ctx context.Context, ref, pinned string) error {
	maps := c.client.CoreV1().ConfigMaps(Namespace)
	now, err := maps.Get(ctx, imagesName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		now = &corev1.ConfigMap{ObjectMeta: meta(imagesName)}
	} else if err != nil {
		return fmt.Errorf("reading the list of images: %w", err)
	}
	if now.Data == nil {
		now.Data = make(map[string]string)
	}
	now.Data[key(ref)] = pinned
	if now.ResourceVersion == "" {
		_, err = maps.Create(ctx, now, metav1.CreateOptions{})
	} else {
		_, err = maps.Update(ctx, now, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("noting that the cache has %s: %w", ref, err)
	}
	return nil
}

// Lookup is the name under which every node pulls an image from its own cache,
// or why it can't.
func (c *Cache) Lookup(ctx context.Context, ref string) (string, error) {
	_, ref, err := whole(ref)
	if err != nil {
		return "", err
	}
	set, err := c.client.AppsV1().DaemonSets(Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return "", errNotEnabled
	}
	if err != nil {
		return "", fmt.Errorf("asking for the image cache: %w", err)
	}
	if s := set.Status; s.NumberReady < s.DesiredNumberScheduled || s.NumberReady == 0 {
		return "", fmt.Errorf("the image cache is ready on %d of %d nodes", s.NumberReady, s.DesiredNumberScheduled)
	}
	images, err := c.client.CoreV1().ConfigMaps(Namespace).Get(ctx, imagesName, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("asking what the image cache has: %w", err)
	}
	repo, digest, ok := "", "", false
	if err == nil {
		repo, digest, ok = strings.Cut(images.Data[key(ref)], "@")
	}
	if !ok {
		return "", fmt.Errorf("the image cache doesn't have %s: telepresence imagecache push", ref)
	}
	d, err := imagecache.ParseDigest(digest)
	if err != nil {
		return "", fmt.Errorf("reading what the image cache has: %w", err)
	}
	return imagecache.Reference(imagecache.DefaultPort, repo, d), nil
}

// NodeStatus is what one node tells, or why it doesn't.
type NodeStatus struct {
	imagecache.Status
	Ready   bool   `json:"ready"`
	Problem string `json:"problem,omitempty"`
}

// Report is the cache as it is.
type Report struct {
	Nodes   []NodeStatus      `json:"nodes"`
	Images  map[string]string `json:"images"` // pinned references, by key
	Expires time.Time         `json:"certificateExpires"`
}

// Status asks every node. A node that doesn't answer is in the report all the
// same.
func (c *Cache) Status(ctx context.Context) (Report, error) {
	pods, err := c.client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: label + "=" + name})
	if err != nil {
		return Report{}, fmt.Errorf("listing the cache's nodes: %w", err)
	}
	if len(pods.Items) == 0 {
		return Report{}, errNotEnabled
	}
	var r Report
	for _, p := range pods.Items {
		s := NodeStatus{}
		if err := c.ask(ctx, p.Name, &s.Status); err != nil {
			s.Node, s.Problem = p.Spec.NodeName, err.Error()
		} else {
			s.Ready = true
		}
		r.Nodes = append(r.Nodes, s)
	}
	slices.SortFunc(r.Nodes, func(a, b NodeStatus) int { return strings.Compare(a.Node, b.Node) })
	if images, err := c.client.CoreV1().ConfigMaps(Namespace).Get(ctx, imagesName, metav1.GetOptions{}); err == nil {
		r.Images = images.Data
	}
	if keys, err := c.client.CoreV1().Secrets(Namespace).Get(ctx, secretName, metav1.GetOptions{}); err == nil {
		r.Expires, _ = imagecache.Certificates{Cert: keys.Data[imagecache.CertFile]}.Expires()
	}
	return r, nil
}

func (c *Cache) ask(ctx context.Context, pod string, s *imagecache.Status) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, done := c.nodeClient(pod)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/status", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(s)
}
