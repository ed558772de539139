package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A cluster is where the scripts run, seen by its administrator.
type cluster struct {
	kubeconfig string
	config     *rest.Config
	client     kubernetes.Interface
	path       string // PATH: this repository's programs first
	appImage   string
	load       string // the option of imagecache enable that loads images here
}

// connect finds the cluster, or skips the test where there is none.
func connect(t *testing.T) *cluster {
	t.Helper()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	state := os.Getenv("CLUSTER_STATE")
	if state == "" {
		state = filepath.Join(top, ".cluster")
	}
	kubeconfig := os.Getenv("KUBECONFIG")
	if kubeconfig == "" {
		kubeconfig = filepath.Join(state, "admin.kubeconfig")
	}
	if _, err := os.Stat(kubeconfig); err != nil {
		if os.Getenv("E2E") == "required" {
			t.Fatalf("no cluster: %v", err)
		}
		t.Skipf("no cluster (make cluster-ready starts one, or set KUBECONFIG): %v", err)
	}
	for _, program := range []string{"telepresence", "app"} {
		if _, err := os.Stat(filepath.Join(top, "bin", program)); err != nil {
			t.Fatalf("%v: make build sample-app makes it", err)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 50, 100
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	image := os.Getenv("APP_IMAGE")
	if image == "" {
		image = "cluster.test/app:1"
	}
	programs := filepath.Join(top, "test", "e2e", "testdata", "programs")
	path := []string{filepath.Join(top, "bin"), programs, filepath.Join(state, "bin"), os.Getenv("PATH")}
	return &cluster{
		kubeconfig: kubeconfig, config: config, client: client, appImage: image,
		path: strings.Join(path, string(filepath.ListSeparator)), load: loader(top, state, kubeconfig),
	}
}

// loader is how the command loads an image into the cluster: this repository's
// has a command of its own for it.
func loader(top, state, kubeconfig string) string {
	if kubeconfig != filepath.Join(state, "admin.kubeconfig") {
		return "--load"
	}
	return fmt.Sprintf("--load-with=env CLUSTER_SOURCE=%s CLUSTER_STATE=%s %s load",
		filepath.Join(top, "test", "cluster"), state, filepath.Join(top, "bin", "cluster"))
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// newNamespace makes a namespace that is named after the script.
func (c *cluster) newNamespace(ctx context.Context, script string) (string, error) {
	name := "e2e-" + strings.Trim(notInNames.ReplaceAllString(strings.ToLower(script), "-"), "-") + "-"
	made, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("creating a namespace: %w", err)
	}
	return made.Name, nil
}

func (c *cluster) deleteNamespace(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return c.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
}

// kubeconfig writes a file with which one is a user who has a role in the
// script's namespace and no right elsewhere, and waits until the role holds.
// The user is a service account, which any cluster lets us make.
func (s *script) kubeconfig(ctx context.Context, user, role string) (string, error) {
	accounts := s.cluster.client.CoreV1().ServiceAccounts(s.namespace)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: user}}
	if _, err := accounts.Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("creating user %s: %w", user, err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user + "-" + role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: user, Namespace: s.namespace}},
	}
	_, err := s.cluster.client.RbacV1().RoleBindings(s.namespace).Create(ctx, binding, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("giving role %s to %s: %w", role, user, err)
	}
	life := int64((2 * time.Hour).Seconds())
	token, err := accounts.CreateToken(ctx, user, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &life},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("asking for a token of %s: %w", user, err)
	}
	if err := s.awaitRights(ctx, token.Status.Token, role); err != nil {
		return "", err
	}
	return s.writeKubeconfig(user, token.Status.Token)
}

// awaitRights waits until the API server has seen the binding.
func (s *script) awaitRights(ctx context.Context, token, role string) error {
	config := rest.AnonymousClientConfig(s.cluster.config)
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	right := authorizationv1.ResourceAttributes{Namespace: s.namespace, Verb: "list", Resource: "pods"}
	return until(func() error {
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right},
		}, metav1.CreateOptions{})
		if err == nil && !review.Status.Allowed {
			err = fmt.Errorf("role %s is not in force yet", role)
		}
		return err
	})
}

func (s *script) writeKubeconfig(user, token string) (string, error) {
	server := clientcmdapi.NewCluster()
	server.Server = s.cluster.config.Host
	server.CertificateAuthority = s.cluster.config.CAFile
	server.CertificateAuthorityData = s.cluster.config.CAData
	server.InsecureSkipTLSVerify = s.cluster.config.Insecure
	holder := clientcmdapi.NewAuthInfo()
	holder.Token = token
	place := clientcmdapi.NewContext()
	place.Cluster, place.AuthInfo, place.Namespace = "test", user, s.namespace
	config := clientcmdapi.NewConfig()
	config.Clusters["test"], config.AuthInfos[user], config.Contexts["test"] = server, holder, place
	config.CurrentContext = "test"
	path := filepath.Join(s.folder, user+".kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}
