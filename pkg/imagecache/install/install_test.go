package install

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestWhole(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string]string{
		"docker.io/telepresence/agent:1": "docker.io/telepresence/agent:1",
		"telepresence/agent:1":           "docker.io/telepresence/agent:1",
		"index.docker.io/a/b:1":          "docker.io/a/b:1",
		"registry.example:5000/a/b:v1":   "registry.example:5000/a/b:v1",
	} {
		repo, got, err := whole(ref)
		if err != nil || got != want || !strings.HasPrefix(got, repo+":") {
			t.Errorf("%s is %s of %s, %v; want %s", ref, got, repo, err, want)
		}
	}
	if _, _, err := whole("UPPER/case:1"); err == nil {
		t.Error("a reference that is none was taken")
	}
}

// ready is a cluster whose cache is ready on one node.
func ready() (*Cache, *fake.Clientset) {
	client := fake.NewClientset(
		&appsv1.DaemonSet{ObjectMeta: meta(name), Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 1, NumberReady: 1}},
		&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "cache-1", Namespace: Namespace, Labels: labels()},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		},
		&corev1.Secret{ObjectMeta: meta(secretName), Data: map[string][]byte{tokenKey: []byte("secret")}},
	)
	return New(client, nil), client
}

// sparse is an index in a folder from which one image's manifest is gone, as when
// somebody has copied the others only.
func sparse(t *testing.T) (index v1.ImageIndex, here string) {
	t.Helper()
	whole, err := random.Index(100, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := layout.Write(t.TempDir(), whole)
	if err != nil {
		t.Fatal(err)
	}
	if index, err = folder.ImageIndex(); err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.RemoveBlob(m.Manifests[0].Digest); err != nil {
		t.Fatal(err)
	}
	return index, m.Manifests[1].Digest.String()
}

func TestPushThenLookup(t *testing.T) {
	t.Parallel()
	var paths []string
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		paths = append(paths, r.URL.Path)
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(node.Close)
	c, _ := ready()
	c.forward = func(ctx context.Context, _, _ string, _ uint16) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", node.Listener.Addr().String())
	}
	if _, err := c.Lookup(t.Context(), "docker.io/shop/agent:1"); err == nil || !strings.Contains(err.Error(), "imagecache push") {
		t.Errorf("before the push: %v", err)
	}
	index, here := sparse(t)
	if err := c.Push(t.Context(), "shop/agent:1", index, func(string) {}); err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	const blobs = "/v2/docker.io/shop/agent/blobs/"
	if n := len(paths); n != 5 || paths[n-2] != blobs+here || paths[n-1] != blobs+digest.String() {
		t.Errorf("it put %q; the manifest and the index come last", paths)
	}
	got, err := c.Lookup(t.Context(), "docker.io/shop/agent:1")
	if want := "localhost:5780/docker.io/shop/agent@" + digest.String(); err != nil || got != want {
		t.Errorf("it is %s, %v; want %s", got, err, want)
	}
}

func TestLookupWithoutACache(t *testing.T) {
	t.Parallel()
	c := New(fake.NewClientset(), nil)
	if _, err := c.Lookup(t.Context(), "docker.io/shop/agent:1"); !errors.Is(err, errNotEnabled) {
		t.Errorf("error is %v", err)
	}
}

func TestStepsAside(t *testing.T) {
	t.Parallel()
	for what, object := range map[string]*fake.Clientset{
		"Spegel":     fake.NewClientset(&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "spegel", Namespace: "kube-system", Labels: map[string]string{label: "spegel"}}}),
		"k3s":        fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"p2p.k3s.cattle.io/enabled": "true"}}}),
		"on node n2": fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2", Annotations: map[string]string{"p2p.k3s.cattle.io/node-address": "/ip4/10.0.0.1"}}}),
	} {
		err := New(object, nil).Enable(t.Context(), Options{}, func(string) {})
		if !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: error is %v", what, err)
		}
		if _, err := object.CoreV1().Namespaces().Get(t.Context(), Namespace, metav1.GetOptions{}); err == nil {
			t.Errorf("%s: something was installed beside it", what)
		}
	}
}

// A renewed authority is trusted beside the one before, and the token stays.
func TestSecretIsRenewed(t *testing.T) {
	t.Parallel()
	first, err := secret(time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	same, err := secret(time.Now(), first)
	if err != nil || string(same.Data["tls.crt"]) != string(first.Data["tls.crt"]) {
		t.Errorf("long before the end the certificate is another, %v", err)
	}
	second, err := secret(time.Now().Add(300*24*time.Hour), first)
	if err != nil {
		t.Fatal(err)
	}
	third, err := secret(time.Now().Add(600*24*time.Hour), second)
	if err != nil {
		t.Fatal(err)
	}
	if string(second.Data[tokenKey]) != string(first.Data[tokenKey]) {
		t.Error("the token has changed")
	}
	const begin = "BEGIN CERTIFICATE"
	if n := strings.Count(string(third.Data["ca.crt"]), begin); n != 2 {
		t.Errorf("%d authorities are trusted", n)
	}
}

// Enable gives up in the end, and says which node's cache isn't ready and why.
func TestEnableGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "cache-1", Namespace: Namespace},
			Spec:       corev1.PodSpec{NodeName: "n1"},
			Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
				State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "unauthorized"}},
			}}},
		})
		err := New(client, nil).Enable(t.Context(), Options{Image: "r.example/cache:1"}, func(string) {})
		var hinted interface{ Hint() string }
		if err == nil || !strings.HasSuffix(err.Error(), "after 3m0s: node n1: ErrImagePull unauthorized") || !errors.As(err, &hinted) {
			t.Fatalf("error is %v", err)
		}
		if !strings.HasPrefix(hinted.Hint(), "--load ") {
			t.Errorf("the hint is %q", hinted.Hint())
		}
	})
}

// A cache that isn't ready on every node isn't counted on.
func TestLookupInACacheThatIsNotReady(t *testing.T) {
	t.Parallel()
	c, client := ready()
	set, err := client.AppsV1().DaemonSets(Namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	set.Status.DesiredNumberScheduled = 3
	if _, err := client.AppsV1().DaemonSets(Namespace).UpdateStatus(t.Context(), set, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Lookup(t.Context(), "docker.io/shop/agent:1"); err == nil || err.Error() != "the image cache is ready on 1 of 3 nodes" {
		t.Errorf("error is %v", err)
	}
}

// The image is loaded into the nodes before anything needs it; if that fails,
// nothing is installed.
func TestEnableLoadsFirst(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	failed := errors.New("no such container")
	err := New(client, nil).Enable(t.Context(), Options{Load: func(_ context.Context, nodes []corev1.Node, _ func(string)) error {
		if len(nodes) != 1 || nodes[0].Name != "n1" {
			t.Errorf("it loads into %v", nodes)
		}
		return failed
	}}, func(string) {})
	if !errors.Is(err, failed) {
		t.Errorf("error is %v", err)
	}
	if _, err := client.CoreV1().Namespaces().Get(t.Context(), Namespace, metav1.GetOptions{}); err == nil {
		t.Error("it was installed all the same")
	}
}
