package install

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// How long nodes may take to be ready, and the namespace to go.
const patience = 3 * time.Minute

// lookEvery is how often the cluster is asked how far it is.
const lookEvery = 500 * time.Millisecond

// ErrOther says that the cluster shares images between its nodes already.
var ErrOther = errors.New("the cluster shares images between its nodes already")

// Cache is the image cache of one cluster. It holds nothing that must be closed.
type Cache struct {
	client  kubernetes.Interface
	forward Forward
	now     func() time.Time
}

// New is the cache of the cluster behind a client. forward reaches its nodes.
func New(client kubernetes.Interface, forward Forward) *Cache {
	return &Cache{client: client, forward: forward, now: time.Now}
}

// Enable installs the cache, or renews what is installed, its certificates
// included, and waits until every node is ready. tell gets what it waits for.
func (c *Cache) Enable(ctx context.Context, o Options, tell func(string)) error {
	if err := c.StepAside(ctx); err != nil {
		return err
	}
	if o.Load != nil {
		nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("looking for nodes to load the image into: %w", err)
		}
		if err := o.Load(ctx, nodes.Items, tell); err != nil {
			return err
		}
	}
	if err := c.apply(ctx, o); err != nil {
		return err
	}
	return c.awaitReady(ctx, tell)
}

// StepAside returns ErrOther, with its name, where another cache does the work:
// Spegel, or the registry mirror that k3s has in itself.
func (c *Cache) StepAside(ctx context.Context) error {
	for _, selector := range []string{"app.kubernetes.io/name=spegel", "app=spegel"} {
		sets, err := c.client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{LabelSelector: selector, Limit: 1})
		if err != nil {
			return fmt.Errorf("looking for other image caches: %w", err)
		}
		if len(sets.Items) > 0 {
			return fmt.Errorf("%w: Spegel, daemonset %s/%s", ErrOther, sets.Items[0].Namespace, sets.Items[0].Name)
		}
	}
	nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("looking for other image caches: %w", err)
	}
	for _, n := range nodes.Items {
		if n.Labels["p2p.k3s.cattle.io/enabled"] == "true" || n.Annotations["p2p.k3s.cattle.io/node-address"] != "" {
			return fmt.Errorf("%w: k3s's embedded registry mirror, on node %s", ErrOther, n.Name)
		}
	}
	return nil
}

// apply makes the objects, or makes them as they should be.
func (c *Cache) apply(ctx context.Context, o Options) error {
	core, rbac, apps := c.client.CoreV1(), c.client.RbacV1(), c.client.AppsV1()
	old, err := core.Secrets(Namespace).Get(ctx, secretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		old = nil
	case err != nil:
		return fmt.Errorf("reading the cache's secret: %w", err)
	}
	keys, err := secret(c.now(), old)
	if err != nil {
		return err
	}
	account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: Namespace}
	everyone := rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:authenticated"}
	return errors.Join(
		ensure(ctx, "namespace", core.Namespaces(), namespace()),
		ensure(ctx, "service account", core.ServiceAccounts(Namespace), &corev1.ServiceAccount{ObjectMeta: meta(name)}),
		ensure(ctx, "role", rbac.Roles(Namespace), nodeRole()),
		ensure(ctx, "role binding", rbac.RoleBindings(Namespace), binding(name, account)),
		ensure(ctx, "role", rbac.Roles(Namespace), readerRole()),
		ensure(ctx, "role binding", rbac.RoleBindings(Namespace), binding(name+"-reader", everyone)),
		ensure(ctx, "secret", core.Secrets(Namespace), keys),
		ensure(ctx, "service", core.Services(Namespace), service()),
		ensure(ctx, "daemonset", apps.DaemonSets(Namespace), daemonSet(o)),
	)
}

// kind is what client-go has for each kind of object.
type kind[T metav1.Object] interface {
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
}

// ensure makes an object, or replaces the one that is there.
func ensure[T metav1.Object](ctx context.Context, what string, of kind[T], object T) error {
	_, err := of.Create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = of.Update(ctx, object, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("making %s %s: %w", what, object.GetName(), err)
	}
	return nil
}

// awaitReady waits for the cache on every node.
func (c *Cache) awaitReady(ctx context.Context, tell func(string)) error {
	said := ""
	err := c.poll(ctx, func() (bool, error) {
		set, err := c.client.AppsV1().DaemonSets(Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("waiting for the cache: %w", err)
		}
		s := set.Status
		if s.ObservedGeneration >= set.Generation && s.DesiredNumberScheduled > 0 &&
			s.NumberReady == s.DesiredNumberScheduled && s.UpdatedNumberScheduled == s.DesiredNumberScheduled {
			return true, nil
		}
		if line := fmt.Sprintf("waiting for the cache: ready on %d of %d nodes", s.NumberReady, s.DesiredNumberScheduled); line != said {
			said = line
			tell(line)
		}
		return false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return &notReadyError{c.trouble(ctx)}
	}
	return err
}

// notReadyError says that a node's cache isn't ready.
type notReadyError struct{ why string }

// Error says what keeps it from that.
func (e *notReadyError) Error() string {
	return fmt.Sprintf("the cache isn't ready on every node after %s: %s", patience, e.why)
}

// Hint is the way out.
func (e *notReadyError) Hint() string {
	if strings.Contains(e.why, "ImagePull") || strings.Contains(e.why, "ErrImage") {
		return "--load brings the image to the nodes of a local cluster; --image names it in another registry"
	}
	return "see kubectl describe pods --namespace " + Namespace
}

// trouble is what keeps a node's cache from being ready.
func (c *Cache) trouble(ctx context.Context) string {
	pods, err := c.client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, p := range pods.Items {
		for _, s := range p.Status.ContainerStatuses {
			if w := s.State.Waiting; w != nil {
				return fmt.Sprintf("node %s: %s %s", p.Spec.NodeName, w.Reason, w.Message)
			}
		}
	}
	return "its containers are not ready"
}

// Disable takes the cache away, and waits until nothing of it is left.
func (c *Cache) Disable(ctx context.Context) error {
	err := c.client.CoreV1().Namespaces().Delete(ctx, Namespace, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting namespace %s: %w", Namespace, err)
	}
	err = c.poll(ctx, func() (bool, error) {
		_, err := c.client.CoreV1().Namespaces().Get(ctx, Namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("namespace %s is still going after %s", Namespace, patience)
	}
	return err
}

// poll asks until done, for as long as patience lasts.
func (c *Cache) poll(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
