package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/telepresence/telepresence/pkg/doctor"
)

// right is something that a session does in its namespace, as docs/rights.yaml grants it.
type right struct {
	verbs       []string
	group       string
	resource    string
	subresource string
	what        string // what for
}

// rights are what a swap needs, in the order of docs/rights.yaml.
var rights = []right{
	{verbs: []string{"get", "list", "watch", "create", "patch", "delete"}, resource: "pods", what: "making the proxy"},
	{verbs: []string{"get", "create"}, resource: "pods", subresource: "portforward", what: "the tunnel"},
	{verbs: []string{"get", "list", "create", "patch", "delete"}, resource: "secrets", what: "the undo record"},
	{verbs: []string{"get", "list", "create", "patch", "delete"}, group: "coordination.k8s.io", resource: "leases", what: "the sign of life"},
	{verbs: []string{"get", "list", "patch"}, group: "apps", resource: "deployments", what: "swapping a deployment"},
	{verbs: []string{"get", "list", "patch"}, group: "apps", resource: "statefulsets", what: "swapping a statefulset"},
	{verbs: []string{"get", "list", "patch"}, group: "apps", resource: "replicasets", what: "swapping a deployment or a replica set"},
	{verbs: []string{"get", "list", "create", "delete"}, resource: "services", what: "losing no request, and --new-deployment"},
	{verbs: []string{"list"}, group: "discovery.k8s.io", resource: "endpointslices", what: "losing no request"},
	{verbs: []string{"list"}, resource: "events", what: "saying what a pod waits for"},
	{verbs: []string{"get", "create"}, resource: "pods", subresource: "exec", what: "the environment that the image sets"},
	{verbs: []string{"list"}, resource: "persistentvolumeclaims", what: "seeing that a volume cannot be shared"},
	{verbs: []string{"list"}, resource: "resourcequotas", what: "seeing that there is no room"},
	{verbs: []string{"list"}, resource: "limitranges", what: "seeing that there is no room"},
	{verbs: []string{"list"}, group: "autoscaling", resource: "horizontalpodautoscalers", what: "seeing that an autoscaler is at work"},
	{verbs: []string{"list"}, group: "policy", resource: "poddisruptionbudgets", what: "seeing that the originals may not go"},
	{verbs: []string{"list"}, resource: "serviceaccounts", what: "--serviceaccount"},
}

func (r right) String() string {
	name := r.resource
	if r.subresource != "" {
		name += "/" + r.subresource
	}
	if r.group != "" {
		name += "." + r.group
	}
	return name
}

// Checks are those of the cluster: the kubeconfig, the server, the namespace, each right, port-forwarding. None changes anything.
func Checks(cfg Config) []doctor.Check {
	connected := sync.OnceValues(func() (*Cluster, error) { return Connect(cfg) })
	with := func(run func(context.Context, *Cluster) (string, error)) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			c, err := connected()
			if err != nil {
				return "", errors.New("there is no cluster to ask")
			}
			return run(ctx, c)
		}
	}
	checks := []doctor.Check{
		{
			Name: "kubeconfig", Fix: "set KUBECONFIG, or choose a context with --context",
			Run: func(context.Context) (string, error) {
				c, err := connected()
				if err != nil {
					return "", err
				}
				return fmt.Sprintf("context %q, namespace %q", c.Context(), c.Namespace()), nil
			},
		},
		{Name: "API server", Fix: "start the cluster, or connect to its network", Run: with(checkServer)},
		{Name: "namespace", Fix: "choose one with --namespace", Run: with(func(ctx context.Context, c *Cluster) (string, error) {
			return c.Namespace(), c.Check(ctx)
		})},
	}
	for _, r := range rights {
		checks = append(checks, doctor.Check{
			Name: fmt.Sprintf("right to %s %s", strings.Join(r.verbs, ", "), r), Fix: rightsHint,
			Run: with(func(ctx context.Context, c *Cluster) (string, error) { return checkRight(ctx, c, r) }),
		})
	}
	return append(checks,
		doctor.Check{Name: "port-forward over WebSocket", Fix: "SPDY does as well; a server of 1.31 or later has both", Run: with(checkWebSocket)},
		doctor.Check{Name: "port-forward over SPDY", Fix: "WebSocket does as well; a proxy before the API server may let only one through", Run: with(checkSPDY)},
	)
}

// checkServer asks for the server's version; this program is built for those of the last three years.
func checkServer(ctx context.Context, c *Cluster) (string, error) {
	var v version.Info
	body, err := c.core.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return "", c.explain("", err)
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return "", fmt.Errorf("%s does not answer as an API server does: %w", c.Server(), err)
	}
	if skew := time.Duration(c.clock.skew.Load()); skew.Abs() > 30*time.Second {
		return "", &trouble{
			what: fmt.Sprintf("%s at %s, but the clocks differ by %s", v.GitVersion, c.Server(), skew.Abs().Round(time.Second)),
			hint: "set this machine's clock: tokens and certificates depend on it",
		}
	}
	return fmt.Sprintf("%s at %s", v.GitVersion, c.Server()), nil
}

func checkRight(ctx context.Context, c *Cluster, r right) (string, error) {
	var missing []string
	for _, verb := range r.verbs {
		review, err := c.core.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: c.namespace, Verb: verb, Group: r.group, Resource: r.resource, Subresource: r.subresource,
			}},
		}, metav1.CreateOptions{})
		if err != nil {
			return "", c.explain("", err)
		}
		if !review.Status.Allowed {
			missing = append(missing, verb)
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("you may not %s %s in namespace %q (for %s)", strings.Join(missing, ", "), r, c.namespace, r.what)
	}
	return r.what, nil
}

// nobody is a pod that is not there: a server that forwards ports says so, which is answer enough.
const nobody = "telepresence-doctor-asks-for-nobody"

func checkWebSocket(ctx context.Context, c *Cluster) (string, error) {
	return c.answered(c.forward.TryWebSocket(ctx, c.portForwardURL(c.anyPod(ctx))))
}

func checkSPDY(ctx context.Context, c *Cluster) (string, error) {
	return c.answered(c.forward.TrySPDY(ctx, c.portForwardURL(c.anyPod(ctx))))
}

// anyPod is a running pod to try port-forwarding on: connecting to the kubelet reaches none of the pod's ports.
func (c *Cluster) anyPod(ctx context.Context) string {
	list, err := c.core.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=" + string(corev1.PodRunning), Limit: 1})
	if err != nil || len(list.Items) == 0 {
		return nobody
	}
	return list.Items[0].Name
}

// answered takes the answer that the pod is not there for one that a port-forward is possible.
func (c *Cluster) answered(err error) (string, error) {
	// Over WebSocket the server's answer comes as the text of a failed upgrade.
	if apierrors.IsNotFound(err) || err != nil && strings.Contains(err.Error(), `"`+nobody+`" not found`) {
		return "as far as can be told without a running pod", nil
	}
	return "", c.explain("", err)
}
