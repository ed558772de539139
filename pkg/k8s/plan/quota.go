package plan

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// noRoom tells which quota has no room for one pod more, or nothing.
func noRoom(s Snapshot, pod *corev1.Pod) string {
	needs := podNeeds(pod.Spec, s.LimitRanges)
	for _, q := range s.Quotas {
		if !concerns(q, pod.Spec, needs) {
			continue
		}
		if name := exceeded(q, needs); name != "" {
			return fmt.Sprintf("quota %s has no room for one pod more (%s)", q.Name, name)
		}
	}
	return ""
}

// exceeded is what a quota has too little of, or nothing.
func exceeded(q corev1.ResourceQuota, needs corev1.ResourceList) corev1.ResourceName {
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		hard, ok := q.Status.Hard[name]
		if !ok {
			continue
		}
		used := q.Status.Used[name].DeepCopy()
		used.Add(needs[name])
		if used.Cmp(hard) > 0 {
			return name
		}
	}
	return ""
}

// quotaOn tells whether some quota counts a resource.
func quotaOn(quotas []corev1.ResourceQuota, name corev1.ResourceName) bool {
	return slices.ContainsFunc(quotas, func(q corev1.ResourceQuota) bool {
		_, ok := q.Spec.Hard[name]
		_, known := q.Status.Hard[name]
		return ok || known
	})
}

// concerns tells whether a quota counts the pod: all its scopes must fit.
func concerns(q corev1.ResourceQuota, spec corev1.PodSpec, needs corev1.ResourceList) bool {
	for _, scope := range q.Spec.Scopes {
		if !inScope(corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists}, spec, needs) {
			return false
		}
	}
	if q.Spec.ScopeSelector != nil {
		for _, e := range q.Spec.ScopeSelector.MatchExpressions {
			if !inScope(e, spec, needs) {
				return false
			}
		}
	}
	return true
}

// inScope tells whether the pod is in one of a quota's scopes
// (https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-scopes).
// In one that isn't known here it is not: the server has the last word.
func inScope(e corev1.ScopedResourceSelectorRequirement, spec corev1.PodSpec, needs corev1.ResourceList) bool {
	bestEffort := !slices.ContainsFunc(slices.Collect(maps.Keys(needs)), func(name corev1.ResourceName) bool {
		return name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceLimitsCPU || name == corev1.ResourceLimitsMemory
	})
	switch e.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return spec.ActiveDeadlineSeconds != nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return spec.ActiveDeadlineSeconds == nil
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort
	case corev1.ResourceQuotaScopePriorityClass:
		return byOperator(e, spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity, corev1.ResourceQuotaScopeVolumeAttributesClass:
	}
	return false
}

func byOperator(e corev1.ScopedResourceSelectorRequirement, value string) bool {
	switch e.Operator {
	case corev1.ScopeSelectorOpIn:
		return slices.Contains(e.Values, value)
	case corev1.ScopeSelectorOpNotIn:
		return !slices.Contains(e.Values, value)
	case corev1.ScopeSelectorOpExists:
		return value != ""
	case corev1.ScopeSelectorOpDoesNotExist:
		return value == ""
	}
	return false
}

// podNeeds is what a quota counts for a pod, by the names that quotas have for
// it.
func podNeeds(spec corev1.PodSpec, ranges []corev1.LimitRange) corev1.ResourceList {
	needs := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1"), "count/pods": resource.MustParse("1")}
	for name := range resourcesOf(spec, ranges) {
		requests := podNeed(spec, name, func(c corev1.Container) (resource.Quantity, bool) { return requested(c, name, ranges) },
			func(r corev1.ResourceRequirements) corev1.ResourceList { return r.Requests }, spec.Overhead)
		if !requests.IsZero() {
			needs[name], needs["requests."+name] = requests, requests
		}
		limits := podNeed(spec, name, func(c corev1.Container) (resource.Quantity, bool) { return limited(c, name, ranges) },
			func(r corev1.ResourceRequirements) corev1.ResourceList { return r.Limits }, spec.Overhead)
		if !limits.IsZero() {
			needs["limits."+name] = limits
		}
	}
	for _, v := range spec.Volumes { // a claim of the pod's own comes with it
		if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
			size := v.Ephemeral.VolumeClaimTemplate.Spec.Resources.Requests[corev1.ResourceStorage]
			for name, q := range map[corev1.ResourceName]resource.Quantity{
				corev1.ResourcePersistentVolumeClaims: resource.MustParse("1"), "count/persistentvolumeclaims": resource.MustParse("1"),
				corev1.ResourceRequestsStorage: size,
			} {
				sum := needs[name].DeepCopy()
				sum.Add(q)
				needs[name] = sum
			}
		}
	}
	return needs
}

// resourcesOf are the names of all that the pod's containers ask for.
func resourcesOf(spec corev1.PodSpec, ranges []corev1.LimitRange) map[corev1.ResourceName]bool {
	names := map[corev1.ResourceName]bool{}
	lists := []corev1.ResourceList{}
	for _, c := range slices.Concat(spec.Containers, spec.InitContainers) {
		lists = append(lists, c.Resources.Requests, c.Resources.Limits)
	}
	for _, r := range ranges {
		for _, item := range r.Spec.Limits {
			if item.Type == corev1.LimitTypeContainer {
				lists = append(lists, item.Default, item.DefaultRequest)
			}
		}
	}
	if spec.Resources != nil {
		lists = append(lists, spec.Resources.Requests, spec.Resources.Limits)
	}
	for _, l := range lists {
		for name := range l {
			names[name] = true
		}
	}
	return names
}

// podNeed is a pod's part of one resource: what it says for the whole pod, or the
// most that its containers use at one time, and the runtime's overhead
// (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers).
func podNeed(spec corev1.PodSpec, name corev1.ResourceName, of func(corev1.Container) (resource.Quantity, bool),
	whole func(corev1.ResourceRequirements) corev1.ResourceList, overhead corev1.ResourceList,
) resource.Quantity {
	need := together(spec, of)
	if spec.Resources != nil {
		if q, ok := whole(*spec.Resources)[name]; ok {
			need = q.DeepCopy()
		}
	}
	if more, ok := overhead[name]; ok && !need.IsZero() {
		need.Add(more)
	}
	return need
}

// together is the most that containers use at one time: all at the end, or one
// init container and the sidecars before it.
func together(spec corev1.PodSpec, of func(corev1.Container) (resource.Quantity, bool)) resource.Quantity {
	var sidecars, most resource.Quantity
	for _, c := range spec.InitContainers {
		q, _ := of(c)
		now := sidecars.DeepCopy()
		now.Add(q)
		if isSidecar(c) {
			sidecars = now
		}
		if now.Cmp(most) > 0 {
			most = now
		}
	}
	all := sidecars.DeepCopy()
	for _, c := range spec.Containers {
		q, _ := of(c)
		all.Add(q)
	}
	if most.Cmp(all) > 0 {
		return most
	}
	return all
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
	if q, ok := byDefault(name, ranges, func(i corev1.LimitRangeItem) corev1.ResourceList { return i.DefaultRequest }); ok {
		return q, true
	}
	return limited(c, name, ranges)
}

// limited is a container's limit: its own, or the namespace's default.
func limited(c corev1.Container, name corev1.ResourceName, ranges []corev1.LimitRange) (resource.Quantity, bool) {
	if q, ok := c.Resources.Limits[name]; ok {
		return q, true
	}
	return byDefault(name, ranges, func(i corev1.LimitRangeItem) corev1.ResourceList { return i.Default })
}

// byDefault is what the namespace gives to containers that don't say.
func byDefault(name corev1.ResourceName, ranges []corev1.LimitRange, of func(corev1.LimitRangeItem) corev1.ResourceList) (resource.Quantity, bool) {
	for _, r := range ranges {
		for _, item := range r.Spec.Limits {
			if q, ok := of(item)[name]; ok && item.Type == corev1.LimitTypeContainer {
				return q, true
			}
		}
	}
	return resource.Quantity{}, false
}

// refuseRoom refuses what no quota has room for though nothing goes first: the
// record of a session, a service, and the proxy where there are no originals.
func (p *Plan) refuseRoom(s Snapshot) error {
	one := resource.MustParse("1")
	kinds := []struct {
		what  string
		needs corev1.ResourceList
	}{
		{"secret", corev1.ResourceList{corev1.ResourceSecrets: one, "count/secrets": one}},
		{"lease", corev1.ResourceList{"count/leases.coordination.k8s.io": one}},
	}
	if p.Service != nil {
		kinds = append(kinds, struct {
			what  string
			needs corev1.ResourceList
		}{"service", corev1.ResourceList{corev1.ResourceServices: one, "count/services": one}})
	}
	for _, q := range s.Quotas {
		for _, k := range kinds {
			if exceeded(q, k.needs) != "" {
				return &Refusal{Reason: fmt.Sprintf("quota %s has no room for the %s that a session needs", q.Name, k.what), Fix: "make room in it, or raise it"}
			}
		}
	}
	if why := noRoom(s, p.Pod); why != "" && p.Strategy == Leave {
		return &Refusal{Reason: why, Fix: "make room in it, or raise it"}
	}
	return nil
}
