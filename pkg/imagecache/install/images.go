package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	reference "github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/imagecache"
)

// Forward connects to a port on the loopback of a pod's network namespace, here
// the node's.
type Forward func(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error)

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
