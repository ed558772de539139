package plan

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// noTwo tells why the proxy and an original can't be there at once, or nothing.
func (p *Plan) noTwo(s Snapshot) string {
	spec := p.Pod.Spec
	for _, find := range []func() string{
		p.updateAlone,
		func() string { return p.nodePorts(spec) },
		func() string { return p.exclusiveVolume(s.Claims) },
		func() string { return scarce(spec) },
		func() string { return noRoom(s, p.Pod) },
	} {
		if why := find(); why != "" {
			return why
		}
	}
	return ""
}

// updateAlone tells why the workload's own updates never have two pods at once
// where one was: what its owner knows, the plan need not find out.
func (p *Plan) updateAlone() string {
	w := p.Workload
	if w.Update.Type == appsv1.RecreateDeploymentStrategyType {
		return fmt.Sprintf("%s is updated by %s: its pods are not to be there at once", p.Target, w.Update.Type)
	}
	if topology := apart(p.Pod); topology != "" && (w.Kind == "StatefulSet" || w.noSurge()) {
		return fmt.Sprintf("two pods of %s must not share a %s, and there may be no free one", p.Target, topology)
	}
	return ""
}

// noSurge tells whether a Deployment never has one pod more than its replicas.
func (w *Workload) noSurge() bool {
	r := w.Update.RollingUpdate
	return r != nil && r.MaxSurge != nil && (r.MaxSurge.String() == "0" || r.MaxSurge.String() == "0%")
}

// apart is the topology of which the pod demands one for itself alone, or
// nothing.
func apart(pod *corev1.Pod) string {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAntiAffinity == nil {
		return ""
	}
	for _, term := range pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if term.Namespaces != nil && !slices.Contains(term.Namespaces, pod.Namespace) {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
		if err == nil && selector.Matches(labels.Set(pod.Labels)) {
			return term.TopologyKey
		}
	}
	return ""
}

// nodePorts tells which port of its node the pod needs for itself, or nothing.
func (p *Plan) nodePorts(spec corev1.PodSpec) string {
	for _, c := range slices.Concat(spec.Containers, spec.InitContainers) {
		for _, cp := range c.Ports {
			if cp.HostPort != 0 {
				return fmt.Sprintf("container %s holds port %d of its node", c.Name, cp.HostPort)
			}
		}
	}
	if spec.HostNetwork && len(p.Ports) > 0 {
		return "the pod listens on its node's own ports"
	}
	return ""
}

// exclusiveVolume tells which volume can't be in two pods at once, or nothing.
// Nobody should write beside the local process even where the node would let
// them.
func (p *Plan) exclusiveVolume(claims []corev1.PersistentVolumeClaim) string {
	for _, t := range p.Workload.VolumeClaimTemplates {
		return fmt.Sprintf("volume %s is the first pod's own", t.Name)
	}
	for _, v := range p.Pod.Spec.Volumes {
		if disk := disk(v.VolumeSource); disk != "" {
			return fmt.Sprintf("volume %s is a disk that one node has at a time (%s)", v.Name, disk)
		}
		if v.PersistentVolumeClaim == nil || v.PersistentVolumeClaim.ReadOnly {
			continue
		}
		name := v.PersistentVolumeClaim.ClaimName
		i := slices.IndexFunc(claims, func(c corev1.PersistentVolumeClaim) bool { return c.Name == name })
		if i < 0 {
			return fmt.Sprintf("claim %s, which could not be read, may be for one pod at a time", name)
		}
		if mode := exclusive(claims[i]); mode != "" {
			return fmt.Sprintf("claim %s can be used by one node, or one pod, at a time (%s)", name, mode)
		}
	}
	return ""
}

// exclusive is the access mode by which a claim is for one node or pod, or
// nothing. A volume that is bound may do more than was asked for.
func exclusive(c corev1.PersistentVolumeClaim) corev1.PersistentVolumeAccessMode {
	modes := c.Status.AccessModes
	if len(modes) == 0 {
		modes = c.Spec.AccessModes
	}
	switch {
	case slices.Contains(c.Spec.AccessModes, corev1.ReadWriteOncePod):
		return corev1.ReadWriteOncePod
	case slices.Contains(modes, corev1.ReadWriteMany):
		return ""
	case slices.Contains(modes, corev1.ReadOnlyMany) && !slices.Contains(modes, corev1.ReadWriteOnce):
		return ""
	}
	return corev1.ReadWriteOnce
}

// disk is the kind of a volume that is attached to one node only, or nothing.
func disk(v corev1.VolumeSource) string {
	switch {
	case v.GCEPersistentDisk != nil && !v.GCEPersistentDisk.ReadOnly:
		return "gcePersistentDisk"
	case v.AWSElasticBlockStore != nil && !v.AWSElasticBlockStore.ReadOnly:
		return "awsElasticBlockStore"
	case v.AzureDisk != nil && (v.AzureDisk.ReadOnly == nil || !*v.AzureDisk.ReadOnly):
		return "azureDisk"
	case v.Cinder != nil && !v.Cinder.ReadOnly:
		return "cinder"
	case v.RBD != nil && !v.RBD.ReadOnly:
		return "rbd"
	case v.ISCSI != nil && !v.ISCSI.ReadOnly:
		return "iscsi"
	case v.FC != nil && !v.FC.ReadOnly:
		return "fc"
	}
	return ""
}

// scarce tells which device the pod holds, of which the cluster may have no
// second, or nothing.
func scarce(spec corev1.PodSpec) string {
	for _, c := range running(spec) {
		for name := range c.Resources.Limits { // they have no requests of their own
			if counted(name) {
				return fmt.Sprintf("container %s holds %s, of which there may be no more", c.Name, name)
			}
		}
	}
	for _, claim := range spec.ResourceClaims {
		if claim.ResourceClaimTemplateName != nil {
			return fmt.Sprintf("the pod claims a device (%s), of which there may be no more", claim.Name)
		}
	}
	return ""
}

// counted tells whether a resource is a device or a reserve that nodes have few
// of (https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources).
func counted(name corev1.ResourceName) bool {
	text := string(name)
	if strings.HasPrefix(text, corev1.ResourceHugePagesPrefix) {
		return true
	}
	domain, _, ok := strings.Cut(text, "/")
	return ok && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io")
}
