package k8s

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// serving is who answers for services: for each, which of its pods are ready, by name.
type serving map[string]map[string]bool

// serving reads who answers for the services that select pods with the labels. Where that may not be read, none are returned:
// a pod's own readiness has to do then.
func (c *Cluster) serving(ctx context.Context, podLabels map[string]string) serving {
	services, err := c.core.CoreV1().Services(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil
	}
	found := serving{}
	for i := range services.Items {
		if service := &services.Items[i]; selects(service, podLabels) {
			found[service.Name] = map[string]bool{}
		}
	}
	if len(found) == 0 {
		return nil
	}
	list, err := c.core.DiscoveryV1().EndpointSlices(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil
	}
	for i := range list.Items {
		pods, ours := found[list.Items[i].Labels[discoveryv1.LabelServiceName]]
		if !ours {
			continue
		}
		for _, e := range list.Items[i].Endpoints {
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				pods[e.TargetRef.Name] = true
			}
		}
	}
	return found
}

// everywhere says whether the pod answers for every service.
func (s serving) everywhere(pod string) bool {
	for _, pods := range s {
		if !pods[pod] {
			return false
		}
	}
	return true
}

// anywhere says whether the pod answers for some service.
func (s serving) anywhere(pod string) bool {
	for _, pods := range s {
		if pods[pod] {
			return true
		}
	}
	return false
}

func selects(service *corev1.Service, podLabels map[string]string) bool {
	return len(service.Spec.Selector) > 0 && labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(podLabels))
}

// awaitServed waits until the pod answers for every service that selects it, but no longer than patience: a service without
// endpoints of its own making is not worth failing for.
func (c *Cluster) awaitServed(ctx context.Context, podLabels map[string]string, pod string, patience time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_ = poll(bounded, func() (bool, error) { return c.serving(bounded, podLabels).everywhere(pod), nil })
	return ctx.Err()
}

// nodesFollow is how much later than the endpoints the nodes' rules are, at most: kube-proxy's minSyncPeriod.
const nodesFollow = time.Second

// awaitUnserved waits until no service that selects pods with the labels counts on any of the named pods, for a few seconds at most, and
// until the nodes know that.
func (c *Cluster) awaitUnserved(ctx context.Context, podLabels map[string]string, names []string) error {
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	services := false
	_ = poll(bounded, func() (bool, error) {
		now := c.serving(bounded, podLabels)
		services = services || now != nil
		return !slices.ContainsFunc(names, now.anywhere), nil
	})
	if !services {
		return ctx.Err()
	}
	return pause(ctx, nodesFollow)
}
