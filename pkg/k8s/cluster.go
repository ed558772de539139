// Package k8s carries a plan out in a cluster: it reads what a plan needs, puts the proxy in place, takes the traffic
// over, reaches the proxy's ports, and puts everything back. It decides nothing that package plan can decide.
package k8s

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs with an auth-provider: OIDC, and the messages of those that are gone
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/k8s/portforward"
	"github.com/telepresence/telepresence/pkg/k8s/ranges"
)

// Tell shows the user one line: no prefix, no capital, no full stop. It may be called from several goroutines.
type Tell func(line string)

// Config says which cluster, as whom, and where in it. The zero value is what kubectl would use.
type Config struct {
	Context   string   // a context of the kubeconfig; empty: the current one
	Namespace string   // empty: the context's
	As        string   // a user to impersonate; empty: none
	AsGroups  []string // groups to impersonate
	// Log takes what the Kubernetes libraries have to say, which they otherwise print; nil drops it. They have
	// one log per process: the last Connect's.
	Log *slog.Logger
}

// Cluster is a connection to one namespace of one cluster. It is safe for concurrent use and needs no closing.
type Cluster struct {
	context   string
	namespace string
	config    *rest.Config
	core      kubernetes.Interface
	dynamic   dynamic.Interface
	mapper    meta.RESTMapper
	clock     *clock
	forward   *portforward.Dialer
}

// Connect reads the kubeconfig files as kubectl does: all of KUBECONFIG, then ~/.kube/config, then the pod's own
// service account. It reads no other file and asks the cluster nothing.
func Connect(cfg Config) (*Cluster, error) {
	logTo(cfg.Log)
	loader := kubeconfig(cfg)
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	name := cmp.Or(cfg.Context, raw.CurrentContext)
	if err := checkContext(&raw, cfg.Context); err != nil {
		return nil, err
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, contextTrouble(&raw, name, err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, fmt.Errorf("reading the namespace of context %q: %w", name, err)
	}
	if cfg.As != "" || len(cfg.AsGroups) > 0 {
		config.Impersonate = rest.ImpersonationConfig{UserName: cfg.As, Groups: cfg.AsGroups}
	}
	return connect(config, cmp.Or(name, "in-cluster"), namespace)
}

// connect makes the clients. config becomes the Cluster's.
func connect(config *rest.Config, name, namespace string) (*Cluster, error) {
	c := &Cluster{context: name, namespace: namespace, config: config, clock: new(clock), forward: portforward.New(config)}
	config.QPS, config.Burst = 50, 100
	config.UserAgent = "telepresence"
	config.WarningHandler = rest.NoWarnings{}
	config.Wrap(c.clock.wrap)
	var err error
	if c.core, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("using context %q: %w", name, err)
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("using context %q: %w", name, err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.core.Discovery()))
	return c, nil
}

// In is the same cluster, with another namespace.
func (c *Cluster) In(namespace string) *Cluster {
	other := *c
	other.namespace = namespace
	return &other
}

// Context is the name of the kubeconfig's context, "in-cluster" for a pod's own service account.
func (c *Cluster) Context() string { return c.context }

// Namespace is where everything happens.
func (c *Cluster) Namespace() string { return c.namespace }

// Client is for who needs more of the cluster than a session does.
func (c *Cluster) Client() kubernetes.Interface { return c.core }

// Server is the API server's URL.
func (c *Cluster) Server() string { return c.config.Host }

// Check asks whether the server answers and the namespace exists.
func (c *Cluster) Check(ctx context.Context) error {
	if err := c.core.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Error(); err != nil {
		return c.explain("", err)
	}
	_, err := c.core.CoreV1().Namespaces().Get(ctx, c.namespace, metav1.GetOptions{})
	switch {
	case err == nil, apierrors.IsForbidden(err):
		// Who may not see the namespace may still work in it; what is not allowed is said when it is tried.
		return nil
	case !apierrors.IsNotFound(err):
		return c.explain("", err)
	}
	there, err := c.Namespaces(ctx)
	if err != nil {
		there = nil
	}
	return &trouble{
		what: fmt.Sprintf("there is no namespace %q in context %q%s", c.namespace, c.context, thereAre(there)),
		hint: "choose one with --namespace",
	}
}

// PortForward connects to a port on the loopback of a pod of the namespace, as portforward.Dialer does.
func (c *Cluster) PortForward(ctx context.Context, pod string, port plan.Port) (net.Conn, error) {
	conn, err := c.forward.Dial(ctx, c.portForwardURL(pod), uint16(port))
	if err != nil {
		return nil, c.explain(fmt.Sprintf("port-forwarding to %s:%d", pod, port), err)
	}
	return conn, nil
}

func (c *Cluster) portForwardURL(pod string) *url.URL {
	return c.core.CoreV1().RESTClient().Get().Resource("pods").Namespace(c.namespace).Name(pod).SubResource("portforward").URL()
}

// Ranges are the addresses of a cluster's pods and services.
type Ranges = ranges.Ranges

// Ranges finds the cluster's ranges, as ranges.Find does.
func (c *Cluster) Ranges(ctx context.Context) (Ranges, error) {
	r, err := ranges.Find(ctx, c.core, c.Server(), c.namespace)
	if err == nil && len(r.Pods) == 0 && len(r.Services) == 0 {
		err = &trouble{
			what: fmt.Sprintf("the ranges of the cluster's addresses are not to be found: nothing that has one may be seen in namespace %q", c.namespace),
			hint: "name them with --also-proxy",
		}
	}
	return r, err
}

// Contexts lists the names of the kubeconfig's contexts, in order.
func Contexts() ([]string, error) {
	raw, err := kubeconfig(Config{}).RawConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return slices.Sorted(maps.Keys(raw.Contexts)), nil
}

// Namespaces lists the cluster's namespaces, in order. Users of one namespace usually may not.
func (c *Cluster) Namespaces(ctx context.Context) ([]string, error) {
	list, err := c.core.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, c.explain("listing namespaces", err)
	}
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name
	}
	slices.Sort(names)
	return names, nil
}

func kubeconfig(cfg Config) clientcmd.ClientConfig {
	overrides := &clientcmd.ConfigOverrides{CurrentContext: cfg.Context}
	overrides.Context.Namespace = cfg.Namespace
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), overrides)
}

// checkContext says which contexts exist when the one asked for does not.
func checkContext(raw *clientcmdapi.Config, asked string) error {
	if asked == "" || raw.Contexts[asked] != nil {
		return nil
	}
	return &trouble{
		what: fmt.Sprintf("there is no context %q in %s%s", asked, kubeconfigFiles(), thereAre(slices.Sorted(maps.Keys(raw.Contexts)))),
		hint: "choose one with --context",
	}
}

// contextTrouble explains why a kubeconfig gives no way to a cluster.
func contextTrouble(raw *clientcmdapi.Config, name string, err error) error {
	contexts := slices.Sorted(maps.Keys(raw.Contexts))
	switch {
	case clientcmd.IsEmptyConfig(err) && len(contexts) == 0:
		return &trouble{
			what: fmt.Sprintf("no cluster is configured in %s", kubeconfigFiles()),
			hint: "set KUBECONFIG to the file that names your cluster",
			err:  err,
		}
	case name == "":
		return &trouble{
			what: fmt.Sprintf("%s has no current context%s", kubeconfigFiles(), thereAre(contexts)),
			hint: "choose one with --context, or for good with: kubectl config use-context NAME",
			err:  err,
		}
	case raw.Contexts[name] == nil:
		return &trouble{
			what: fmt.Sprintf("the current context %q is not in %s%s", name, kubeconfigFiles(), thereAre(contexts)),
			hint: "choose one with --context, or for good with: kubectl config use-context NAME",
			err:  err,
		}
	}
	return fmt.Errorf("using context %q of %s: %w", name, kubeconfigFiles(), err)
}

// kubeconfigFiles names the files that are read, as the user would.
func kubeconfigFiles() string {
	return strings.Join(clientcmd.NewDefaultClientConfigLoadingRules().GetLoadingPrecedence(), ", ")
}

// thereAre lists what exists, after a sentence about what does not; a long list is cut.
func thereAre(names []string) string {
	const most = 12
	switch {
	case len(names) == 0:
		return ""
	case len(names) > most:
		return fmt.Sprintf("; there are: %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return "; there are: " + strings.Join(names, ", ")
}

// clock is the API server's clock, as far as its answers' Date headers tell: whether a session is alive is a question of
// time, asked on machines whose clocks differ.
type clock struct{ skew atomic.Int64 } // nanoseconds

// Now is the server's time, to about two seconds.
func (k *clock) Now() time.Time { return time.Now().Add(time.Duration(k.skew.Load())) }

func (k *clock) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		date, err := http.ParseTime(resp.Header.Get("Date"))
		if err != nil {
			return resp, nil
		}
		skew := time.Until(date)
		if skew.Abs() < 3*time.Second { // a header in whole seconds, and the way here
			skew = 0
		}
		k.skew.Store(int64(skew))
		return resp, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
