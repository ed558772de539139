// Package members tells which nodes of a cluster run the image cache now, by
// the EndpointSlices of its service.
package members

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// resync is how often the whole list is looked at again, should an event have
// been missed.
const resync = 10 * time.Minute

// Members is the list of live nodes. Safe for concurrent use.
type Members struct {
	client    kubernetes.Interface
	namespace string
	service   string
	log       *slog.Logger

	mu    sync.Mutex // guards nodes
	nodes map[string]string
}

// InCluster follows a service of the cluster in which this program runs.
func InCluster(namespace, service string, log *slog.Logger) (*Members, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w", err)
	}
	return New(client, namespace, service, log), nil
}

// New follows a service by a client.
func New(client kubernetes.Interface, namespace, service string, log *slog.Logger) *Members {
	return &Members{client: client, namespace: namespace, service: service, log: log}
}

// Nodes are the live nodes and the addresses, host:port, of their peers' ports.
// Nobody is known before Run has learnt of them. The map is the caller's to read.
func (m *Members) Nodes() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes
}

// Run follows the list until ctx ends.
func (m *Members) Run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(m.client, resync, informers.WithNamespace(m.namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.LabelSelector = discoveryv1.LabelServiceName + "=" + m.service
		}))
	slices := factory.Discovery().V1().EndpointSlices().Informer()
	changed := func() { m.set(slices.GetStore().List()) }
	_, err := slices.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, UpdateFunc: func(any, any) { changed() }, DeleteFunc: func(any) { changed() },
	})
	if err != nil {
		return fmt.Errorf("following service %s: %w", m.service, err)
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	factory.Shutdown()
	return nil
}

// set takes the slices as they are now.
func (m *Members) set(slices []any) {
	nodes := make(map[string]string)
	for _, s := range slices {
		if slice, ok := s.(*discoveryv1.EndpointSlice); ok {
			addNodes(nodes, slice)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(nodes) != len(m.nodes) {
		m.log.Info("nodes", "alive", len(nodes))
	}
	m.nodes = nodes
}

// addNodes adds the nodes whose cache is ready.
func addNodes(nodes map[string]string, slice *discoveryv1.EndpointSlice) {
	if len(slice.Ports) == 0 || slice.Ports[0].Port == nil {
		return
	}
	port := strconv.Itoa(int(*slice.Ports[0].Port))
	for _, e := range slice.Endpoints {
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready
		if e.NodeName == nil || !ready || len(e.Addresses) == 0 {
			continue
		}
		nodes[*e.NodeName] = net.JoinHostPort(e.Addresses[0], port)
	}
}
