package plan

import (
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// chooseStrategy decides how the originals go. Adopting is best where it can be
// done, since the ReplicaSet then mends what a crash leaves.
func (p *Plan) chooseStrategy(s Snapshot) {
	switch w := p.Workload; {
	case w == nil:
		p.Strategy, p.Reason = Leave, "nothing is replaced"
		return
	case w.Replicas == 0:
		p.Strategy, p.Reason = Leave, fmt.Sprintf("%s has no replicas", p.Target)
		return
	}
	if why := p.noTwo(s); why != "" {
		p.Strategy, p.OriginalsFirst, p.Reason = Scale, true, why
		if replaced := p.disrupted(s); replaced != "" {
			p.Warnings = append(p.Warnings, replaced)
		}
		return
	}
	switch w := p.Workload; {
	case w.Kind != "Deployment":
		p.Strategy, p.Reason = Scale, fmt.Sprintf("a %s can't take the proxy for one of its pods", w.Kind)
	case scaler(s.HPAs, w) != "":
		p.Strategy, p.Reason = Scale, fmt.Sprintf("autoscaler %s would add originals beside the proxy", scaler(s.HPAs, w))
	case w.Paused:
		p.Strategy, p.Reason = Scale, fmt.Sprintf("%s is paused, and may have pods of several templates", p.Target)
	case w.ReplicaSet == nil || w.ReplicaSet.Hash == "":
		p.Strategy, p.Reason = Scale, fmt.Sprintf("%s has no ReplicaSet for its present template yet", p.Target)
	default:
		p.Strategy, p.Reason = Adopt, fmt.Sprintf("ReplicaSet %s takes the proxy for one of its pods", w.ReplicaSet.Name)
	}
}

// scaler is the autoscaler that scales the workload, if one does.
func scaler(hpas []autoscalingv2.HorizontalPodAutoscaler, w *Workload) string {
	for _, h := range hpas {
		if ref := h.Spec.ScaleTargetRef; ref.Kind == w.Kind && ref.Name == w.Name {
			return h.Name
		}
	}
	return ""
}

// noTwo tells why the proxy and an original can't be there at once, or nothing.
func (p *Plan) noTwo(s Snapshot) string {
	spec := p.Pod.Spec
	for _, c := range spec.Containers {
		for _, cp := range c.Ports {
			if cp.HostPort != 0 {
				return fmt.Sprintf("container %s holds port %d of its node", c.Name, cp.HostPort)
			}
		}
	}
	if spec.HostNetwork && len(p.Ports) > 0 {
		return "the pod listens on its node's own ports"
	}
	for _, v := range spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		i := slices.IndexFunc(s.Claims, func(c corev1.PersistentVolumeClaim) bool { return c.Name == v.PersistentVolumeClaim.ClaimName })
		if i < 0 {
			if p.Workload.Kind == "StatefulSet" {
				return fmt.Sprintf("volume %s is the first pod's own", v.Name)
			}
			continue
		}
		for _, mode := range s.Claims[i].Spec.AccessModes {
			if mode == corev1.ReadWriteOnce || mode == corev1.ReadWriteOncePod {
				return fmt.Sprintf("claim %s can be used by one node, or one pod, at a time (%s)", s.Claims[i].Name, mode)
			}
		}
	}
	return noRoom(s.Quotas, s.LimitRanges, spec)
}

// noRoom tells which quota has no room for one pod more, or nothing.
func noRoom(quotas []corev1.ResourceQuota, ranges []corev1.LimitRange, spec corev1.PodSpec) string {
	needs := podNeeds(spec, ranges)
	for _, q := range quotas {
		if len(q.Spec.Scopes) > 0 || q.Spec.ScopeSelector != nil {
			continue // of some pods only; the server has the last word
		}
		for name, need := range needs {
			hard, ok := q.Status.Hard[name]
			if !ok {
				continue
			}
			used := q.Status.Used[name]
			used.Add(need)
			if used.Cmp(hard) > 0 {
				return fmt.Sprintf("quota %s has no room for one pod more (%s)", q.Name, name)
			}
		}
	}
	return ""
}

// podNeeds is what a quota counts for a pod: the sum over its containers, or the
// largest init container where that is more.
func podNeeds(spec corev1.PodSpec, ranges []corev1.LimitRange) corev1.ResourceList {
	needs := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1"), "count/pods": resource.MustParse("1")}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		for kind, of := range map[string]func(corev1.Container) (resource.Quantity, bool){
			"requests": func(c corev1.Container) (resource.Quantity, bool) { return requested(c, name, ranges) },
			"limits":   func(c corev1.Container) (resource.Quantity, bool) { return limited(c, name, ranges) },
		} {
			total := sum(spec, of)
			if total.IsZero() {
				continue
			}
			needs[corev1.ResourceName(kind+"."+string(name))] = total
			if kind == "requests" {
				needs[name] = total
			}
		}
	}
	return needs
}

// sum is a pod's part of one resource.
func sum(spec corev1.PodSpec, of func(corev1.Container) (resource.Quantity, bool)) resource.Quantity {
	var total, largest resource.Quantity
	for _, c := range spec.Containers {
		if q, ok := of(c); ok {
			total.Add(q)
		}
	}
	for _, c := range spec.InitContainers {
		q, ok := of(c)
		switch {
		case !ok:
		case c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways:
			total.Add(q)
		case q.Cmp(largest) > 0:
			largest = q
		}
	}
	if largest.Cmp(total) > 0 {
		return largest
	}
	return total
}

// requested is a container's request: its own, its limit, or the namespace's
// default.
func requested(c corev1.Container, name corev1.ResourceName, ranges []corev1.LimitRange) (resource.Quantity, bool) {
	if q, ok := c.Resources.Requests[name]; ok {
		return q, true
	}
	if q, ok := c.Resources.Limits[name]; ok {
		return q, true
	}
	for _, r := range ranges {
		for _, item := range r.Spec.Limits {
			if item.Type != corev1.LimitTypeContainer {
				continue
			}
			if q, ok := item.DefaultRequest[name]; ok {
				return q, true
			}
		}
	}
	return limited(c, name, ranges)
}

// limited is a container's limit: its own, or the namespace's default.
func limited(c corev1.Container, name corev1.ResourceName, ranges []corev1.LimitRange) (resource.Quantity, bool) {
	if q, ok := c.Resources.Limits[name]; ok {
		return q, true
	}
	for _, r := range ranges {
		for _, item := range r.Spec.Limits {
			if item.Type != corev1.LimitTypeContainer {
				continue
			}
			if q, ok := item.Default[name]; ok {
				return q, true
			}
		}
	}
	return resource.Quantity{}, false
}

// disrupted warns that nobody answers while the proxy starts.
func (p *Plan) disrupted(s Snapshot) string {
	var names []string
	for _, svc := range s.Services {
		if selects(svc, p.Pod.Labels) {
			names = append(names, svc.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("nobody answers for service %s until the proxy is ready, and after it until an original is", strings.Join(names, ", "))
}

// selects tells whether a service sends its traffic to pods with the labels.
func selects(svc corev1.Service, labels map[string]string) bool {
	if len(svc.Spec.Selector) == 0 {
		return false
	}
	for k, v := range svc.Spec.Selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}
