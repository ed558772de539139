package members

import (
	"context"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func slice(name string, nodes ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", Labels: map[string]string{discoveryv1.LabelServiceName: "cache"}},
		Ports:      []discoveryv1.EndpointPort{{Port: new(int32(5781))}},
		Endpoints:  nodes,
	}
}

func endpoint(node, address string, ready bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{NodeName: &node, Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
}

func TestFollows(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(slice("a", endpoint("n1", "10.0.0.1", true), endpoint("n2", "10.0.0.2", false)))
	m := New(client, "ns", "cache", slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	await(t, m, map[string]string{"n1": "10.0.0.1:5781"})
	if _, err := client.DiscoveryV1().EndpointSlices("ns").Create(ctx, slice("b", endpoint("n3", "fd00::3", true)), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The fake server forgets what happens between a list and the watch behind it.
	touched := 0
	awaitWhile(t, m, map[string]string{"n1": "10.0.0.1:5781", "n3": "[fd00::3]:5781"}, func() {
		touched++
		b := slice("b", endpoint("n3", "fd00::3", true))
		b.Annotations = map[string]string{"touched": strconv.Itoa(touched)}
		if _, err := client.DiscoveryV1().EndpointSlices("ns").Update(ctx, b, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if err := client.DiscoveryV1().EndpointSlices("ns").Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, m, map[string]string{"n3": "[fd00::3]:5781"})
}

// await waits until the nodes are as wanted.
func await(t *testing.T, m *Members, want map[string]string) {
	t.Helper()
	awaitWhile(t, m, want, func() {})
}

// awaitWhile is await, and does something again and again meanwhile.
func awaitWhile(t *testing.T, m *Members, want map[string]string, again func()) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !maps.Equal(m.Nodes(), want) {
		select {
		case <-tick.C:
			again()
		case <-deadline:
			t.Fatalf("nodes are %v, want %v", m.Nodes(), want)
		}
	}
}
