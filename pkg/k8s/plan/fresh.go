package plan

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// freshContainer is the name of a new pod's only container.
const freshContainer = "telepresence"

// freshPod is the pod of --new-deployment. It has the name that was asked for,
// and passes the restricted pod security level.
func freshPod(s Snapshot, r Request) *corev1.Pod {
	ports := make([]corev1.ContainerPort, len(r.Expose))
	for i, e := range r.Expose {
		ports[i] = corev1.ContainerPort{ContainerPort: int32(e.Remote), Protocol: corev1.ProtocolTCP}
	}
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: r.Target.Name, Namespace: s.Namespace, Labels: make(map[string]string)},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), RunAsUser: new(int64(nobody)), RunAsGroup: new(int64(nobody)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: freshContainer, Ports: ports, Resources: freshResources(s),
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// freshResources asks for the little that the agent needs, or the least that the
// namespace lets a container ask for. A limit there is only where a quota wants
// one and no default gives it.
func freshResources(s Snapshot) corev1.ResourceRequirements {
	requests := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: leastMemory()}
	for _, lr := range s.LimitRanges {
		for _, item := range lr.Spec.Limits {
			for name, has := range requests {
				if least, ok := item.Min[name]; ok && item.Type == corev1.LimitTypeContainer && least.Cmp(has) > 0 {
					requests[name] = least
				}
			}
		}
	}
	all := corev1.ResourceRequirements{Requests: requests}
	enough := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	for name, limit := range enough {
		if _, ok := limited(corev1.Container{}, name, s.LimitRanges); ok || !quotaOn(s.Quotas, "limits."+name) {
			continue
		}
		if least := requests[name]; limit.Cmp(least) < 0 {
			limit = least
		}
		if most := maxOf(s.LimitRanges, name); most != nil && most.Cmp(limit) < 0 {
			limit = *most
		}
		if all.Limits == nil {
			all.Limits = make(corev1.ResourceList)
		}
		all.Limits[name] = limit
	}
	return all
}

// refuseName refuses a name that no pod with a service can have.
func refuseName(t Target) error {
	switch {
	case t.Kind != KindDeployment || t.Container != "":
		return &UsageError{"--new-deployment takes a name only"}
	case len(t.Name) > 63, strings.Contains(t.Name, "."), t.Name == "", t.Name[0] < 'a' || t.Name[0] > 'z':
		return &UsageError{fmt.Sprintf("%q is no name for a new service: it must begin with a letter, have no dots, and 63 characters at most", t.Name)}
	}
	return nil
}

// newService is what makes a fresh proxy reachable by its name.
func (p *Plan) newService(r Request) *corev1.Service {
	if r.Operation != New || len(p.Ports) == 0 {
		return nil
	}
	ports := make([]corev1.ServicePort, len(p.Ports))
	for i, e := range p.Ports {
		ports[i] = corev1.ServicePort{
			Name: fmt.Sprintf("port-%d", e.Remote), Port: int32(e.Remote),
			TargetPort: intstr.FromInt32(int32(e.Remote)), Protocol: corev1.ProtocolTCP,
		}
	}
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{
			Name: r.Target.Name, Namespace: p.Namespace,
			Labels: map[string]string{LabelSession: string(r.Session), LabelRole: "service"}, Annotations: p.annotations(r),
		},
		Spec: corev1.ServiceSpec{Selector: map[string]string{LabelSession: string(r.Session), LabelRole: "proxy"}, Ports: ports},
	}
}
