// Package ranges finds which addresses are a cluster's pods' and services', with the rights that a user of one namespace has.
package ranges

import (
	"context"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Ranges are the addresses of a cluster.
type Ranges struct {
	Pods     []netip.Prefix `json:"pods"`
	Services []netip.Prefix `json:"services"`
}

// Find finds the cluster's ranges; server is the API server's URL. Who may not ask for them gets those that what may be seen in the namespace points
// at: the API server tells the services' when it refuses an address outside of them, and pods show theirs. Ranges that are guessed from pods are as
// wide as clusters usually have them, /16 and /56, but hold neither the nodes, the API server nor a service. What is not found is left empty; the only
// error is the end of ctx.
func Find(ctx context.Context, client kubernetes.Interface, server, namespace string) (Ranges, error) {
	f := finder{client: client, server: serverAddr(server), namespace: namespace}
	var r Ranges
	var nodes []corev1.Node
	var seen, hosts []netip.Addr
	var reads sync.WaitGroup
	reads.Go(func() { r.Services = f.services(ctx) })
	reads.Go(func() {
		if list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err == nil {
			nodes, namespace = list.Items, metav1.NamespaceAll
		}
		seen, hosts = f.pods(ctx, namespace)
	})
	reads.Wait()
	if ctx.Err() != nil {
		return Ranges{}, ctx.Err()
	}
	r.Pods = podRanges(nodes, seen, slices.Concat(single(f.server), single(hosts), r.Services))
	return r, nil
}

// finder is who asks.
type finder struct {
	client    kubernetes.Interface
	server    []netip.Addr
	namespace string
}

// serverAddr is the API server's address, where the kubeconfig has one.
func serverAddr(server string) []netip.Addr {
	u, err := url.Parse(server)
	if err != nil {
		return nil
	}
	return addrs([]string{u.Hostname()})
}

// services are the services', from what is most exact to what is least.
func (f finder) services(ctx context.Context) []netip.Prefix {
	if list, err := f.client.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{}); err == nil && len(list.Items) > 0 {
		var found []netip.Prefix
		for i := range list.Items {
			found = append(found, prefixes(list.Items[i].Spec.CIDRs)...)
		}
		return tidy(found)
	}
	if found := f.byRefusal(ctx); len(found) > 0 {
		return found
	}
	list, err := f.client.CoreV1().Services(f.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil
	}
	var seen []netip.Addr
	for i := range list.Items {
		seen = append(seen, addrs(list.Items[i].Spec.ClusterIPs)...)
	}
	var found []netip.Prefix
	for _, a := range seen {
		found = append(found, widened(a, single(f.server)))
	}
	return tidy(found)
}

var validRange = regexp.MustCompile(`range of valid IPs is ([0-9a-fA-F.:/]+)`)

// byRefusal asks, without changing anything, for a service at an address that no cluster has: the refusal names the range.
func (f finder) byRefusal(ctx context.Context) []netip.Prefix {
	var found []netip.Prefix
	for family, nobodys := range map[corev1.IPFamily]string{corev1.IPv4Protocol: "192.0.2.1", corev1.IPv6Protocol: "2001:db8::1"} {
		_, err := f.client.CoreV1().Services(f.namespace).Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "telepresence-ask-"},
			Spec: corev1.ServiceSpec{
				ClusterIP: nobodys, IPFamilies: []corev1.IPFamily{family}, Ports: []corev1.ServicePort{{Port: 1}},
			},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			continue
		}
		for _, m := range validRange.FindAllStringSubmatch(err.Error(), -1) {
			found = append(found, prefixes([]string{m[1]})...)
		}
	}
	return tidy(found)
}

// podRanges are what Kubernetes has set aside on its nodes, and, where a network plugin gives pods other addresses or nodes may not be seen, what
// the addresses of pods point at.
func podRanges(nodes []corev1.Node, seen []netip.Addr, avoid []netip.Prefix) []netip.Prefix {
	var found []netip.Prefix
	for i := range nodes {
		found = append(found, prefixes(nodes[i].Spec.PodCIDRs)...)
	}
	for _, a := range seen {
		if !slices.ContainsFunc(found, func(p netip.Prefix) bool { return p.Contains(a) }) {
			found = append(found, widened(a, avoid))
		}
	}
	return tidy(found)
}

// widened is the range that a pod's address is likely to be from: the widest that holds nothing that is no pod.
func widened(a netip.Addr, avoid []netip.Prefix) netip.Prefix {
	bits := 16
	if a.Is6() {
		bits = 56
	}
	for ; bits < a.BitLen(); bits++ {
		p := netip.PrefixFrom(a, bits).Masked()
		if !slices.ContainsFunc(avoid, p.Overlaps) {
			return p
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

func single(list []netip.Addr) []netip.Prefix {
	var found []netip.Prefix
	for _, a := range list {
		found = append(found, netip.PrefixFrom(a, a.BitLen()))
	}
	return found
}

// pods are the addresses of the pods in a namespace, but those that are their node's, and the nodes'.
func (f finder) pods(ctx context.Context, namespace string) (seen, hosts []netip.Addr) {
	list, err := f.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil
	}
	for i := range list.Items {
		pod := &list.Items[i]
		for _, ip := range pod.Status.HostIPs {
			hosts = append(hosts, addrs([]string{ip.IP})...)
		}
		if pod.Spec.HostNetwork {
			continue
		}
		for _, ip := range pod.Status.PodIPs {
			seen = append(seen, addrs([]string{ip.IP})...)
		}
	}
	return seen, hosts
}

// tidy sorts ranges and leaves out those that lie within others.
func tidy(found []netip.Prefix) []netip.Prefix {
	slices.SortFunc(found, func(a, b netip.Prefix) int {
		if a.Bits() != b.Bits() {
			return a.Bits() - b.Bits()
		}
		return a.Addr().Compare(b.Addr())
	})
	var kept []netip.Prefix
	for _, p := range found {
		if !slices.ContainsFunc(kept, func(k netip.Prefix) bool { return k.Overlaps(p) }) {
			kept = append(kept, p)
		}
	}
	slices.SortFunc(kept, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return kept
}

func prefixes(texts []string) []netip.Prefix {
	var found []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			found = append(found, p.Masked())
		}
	}
	return found
}

func addrs(texts []string) []netip.Addr {
	var found []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil { // "None" and "" are none
			found = append(found, a.Unmap())
		}
	}
	return found
}
