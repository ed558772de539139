package k8s

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Ranges are the addresses of a cluster.
type Ranges struct {
	Pods     []netip.Prefix `json:"pods"`
	Services []netip.Prefix `json:"services"`
}

// Ranges finds the cluster's ranges. Who may not ask for them gets those that what may be seen points at: the API server tells the services'
// when it refuses an address outside of them, and pods show theirs. Ranges that are guessed from pods are as wide as clusters usually have them,
// /16 and /56; a cluster whose nodes are spread wider needs --also-proxy.
func (c *Cluster) Ranges(ctx context.Context) (Ranges, error) {
	var r Ranges
	reads, ctx := errgroup.WithContext(ctx)
	reads.Go(func() error { r.Services = c.serviceRanges(ctx); return ctx.Err() })
	reads.Go(func() error { r.Pods = c.podRanges(ctx); return ctx.Err() })
	if err := reads.Wait(); err != nil {
		return Ranges{}, err
	}
	if len(r.Pods) == 0 && len(r.Services) == 0 {
		return Ranges{}, &trouble{
			what: fmt.Sprintf("the ranges of the cluster's addresses are not to be found: nothing that has one may be seen in namespace %q", c.namespace),
			hint: "name them with --also-proxy",
		}
	}
	return r, nil
}

// serviceRanges are the services', from what is most exact to what is least.
func (c *Cluster) serviceRanges(ctx context.Context) []netip.Prefix {
	if list, err := c.core.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{}); err == nil && len(list.Items) > 0 {
		var found []netip.Prefix
		for i := range list.Items {
			found = append(found, prefixes(list.Items[i].Spec.CIDRs)...)
		}
		return tidy(found)
	}
	if found := c.rangesByRefusal(ctx); len(found) > 0 {
		return found
	}
	list, err := c.core.CoreV1().Services(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil
	}
	var seen []netip.Addr
	for i := range list.Items {
		seen = append(seen, addrs(list.Items[i].Spec.ClusterIPs)...)
	}
	return widened(seen)
}

var validRange = regexp.MustCompile(`range of valid IPs is ([0-9a-fA-F.:/]+)`)

// rangesByRefusal asks, without changing anything, for a service at an address that no cluster has: the refusal names the range.
func (c *Cluster) rangesByRefusal(ctx context.Context) []netip.Prefix {
	var found []netip.Prefix
	for family, nobodys := range map[corev1.IPFamily]string{corev1.IPv4Protocol: "192.0.2.1", corev1.IPv6Protocol: "2001:db8::1"} {
		_, err := c.core.CoreV1().Services(c.namespace).Create(ctx, &corev1.Service{
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

// podRanges are the pods'.
func (c *Cluster) podRanges(ctx context.Context) []netip.Prefix {
	if nodes, err := c.core.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err == nil {
		var found []netip.Prefix
		for i := range nodes.Items {
			found = append(found, prefixes(nodes.Items[i].Spec.PodCIDRs)...)
		}
		// A network plugin may well give pods other addresses than those that Kubernetes has set aside for a node.
		seen := c.podAddrs(ctx, metav1.NamespaceAll)
		seen = slices.DeleteFunc(seen, func(a netip.Addr) bool {
			return slices.ContainsFunc(found, func(p netip.Prefix) bool { return p.Contains(a) })
		})
		return tidy(append(found, widened(seen)...))
	}
	return widened(c.podAddrs(ctx, c.namespace))
}

// podAddrs are the addresses of the pods in a namespace, but those that are their node's, and of what its services lead to.
func (c *Cluster) podAddrs(ctx context.Context, namespace string) []netip.Addr {
	var seen []netip.Addr
	if list, err := c.core.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{}); err == nil {
		for i := range list.Items {
			pod := &list.Items[i]
			if pod.Spec.HostNetwork {
				continue
			}
			for _, ip := range pod.Status.PodIPs {
				seen = append(seen, addrs([]string{ip.IP})...)
			}
		}
	}
	if list, err := c.core.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{}); err == nil && len(seen) == 0 {
		for i := range list.Items {
			if list.Items[i].AddressType == discoveryv1.AddressTypeFQDN {
				continue
			}
			for _, e := range list.Items[i].Endpoints {
				if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
					seen = append(seen, addrs(e.Addresses)...)
				}
			}
		}
	}
	return seen
}

// widened are the ranges that addresses are likely to be from.
func widened(seen []netip.Addr) []netip.Prefix {
	var found []netip.Prefix
	for _, a := range seen {
		bits := 16
		if a.Is6() {
			bits = 56
		}
		if p, err := a.Prefix(bits); err == nil {
			found = append(found, p)
		}
	}
	return tidy(found)
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
