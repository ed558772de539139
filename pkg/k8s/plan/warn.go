package plan

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// warnf says what the user should know though it stops nothing.
func (p *Plan) warnf(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// warn looks at the whole plan for what the user should know.
func (p *Plan) warn(s Snapshot) {
	if p.Workload == nil {
		return
	}
	if p.OriginalsFirst {
		p.warnDisrupted(s)
	}
	p.warnWaiting()
	p.warnProfiles()
	p.warnOthers(s)
	p.warnUnexposed(s.Services)
}

// warnDisrupted warns that nobody answers while the proxy starts.
func (p *Plan) warnDisrupted(s Snapshot) {
	var names []string
	for _, svc := range s.Services {
		if selects(svc, p.Pod.Labels) {
			names = append(names, svc.Name)
		}
	}
	if len(names) > 0 {
		p.warnf("nobody answers for service %s until the proxy is ready, and after it until an original is", strings.Join(names, ", "))
	}
	for _, b := range s.Budgets {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && selector.Matches(labels.Set(p.Pod.Labels)) {
			p.warnf("disruption budget %s wants some pods of %s to stay, and for a moment none does", b.Name, p.Target)
		}
	}
}

// warnWaiting warns of what the proxy waits for that only others can give.
func (p *Plan) warnWaiting() {
	for _, g := range p.Pod.Spec.SchedulingGates {
		p.warnf("the proxy is scheduled only when somebody lifts the gate %s, as for the originals", g.Name)
	}
	for _, g := range p.Pod.Spec.ReadinessGates {
		p.warnf("the proxy counts as ready only when somebody says so (readiness gate %s), as for the originals", g.ConditionType)
	}
	if topology := apart(p.Pod); topology != "" && !p.OriginalsFirst && p.Workload.Replicas > 0 {
		p.warnf("two pods of %s must not share a %s: the proxy waits for a free one", p.Target, topology)
	}
}

// warnProfiles warns of profiles that were written for another program.
func (p *Plan) warnProfiles() {
	var pod corev1.PodSecurityContext
	if sc := p.Pod.Spec.SecurityContext; sc != nil {
		pod = *sc
	}
	seccomp, apparmor := pod.SeccompProfile, pod.AppArmorProfile
	if sc := p.container().SecurityContext; sc != nil {
		if sc.SeccompProfile != nil {
			seccomp = sc.SeccompProfile
		}
		if sc.AppArmorProfile != nil {
			apparmor = sc.AppArmorProfile
		}
	}
	const text = "container %s keeps its %s profile %s, which was written for another program and may stop the agent"
	if seccomp != nil && seccomp.Type == corev1.SeccompProfileTypeLocalhost && seccomp.LocalhostProfile != nil {
		p.warnf(text, p.Container, "seccomp", *seccomp.LocalhostProfile)
	}
	if apparmor != nil && apparmor.Type == corev1.AppArmorProfileTypeLocalhost && apparmor.LocalhostProfile != nil {
		p.warnf(text, p.Container, "AppArmor", *apparmor.LocalhostProfile)
	}
	const annotation = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
	if name, ok := strings.CutPrefix(p.Pod.Annotations[annotation+p.Container], corev1.DeprecatedAppArmorBetaProfileNamePrefix); ok {
		p.warnf(text, p.Container, "AppArmor", name)
	}
}

// warnOthers warns of others who scale, or roll out, the workload.
func (p *Plan) warnOthers(s Snapshot) {
	w := p.Workload
	if w.Replicas == 0 {
		return
	}
	if w.Controller != "" && w.Replicas != p.Left() {
		p.warnf("%s belongs to %s, which may scale it back while it is swapped", p.Target, w.Controller)
	}
	if h := scalerOf(s.HPAs, w); h != nil {
		if name := h.Labels["scaledobject.keda.sh/name"]; name != "" {
			p.warnf("KEDA may start originals beside the proxy: pause it with the annotation autoscaling.keda.sh/paused on scaledobject %s", name)
		}
	}
	if n := older(s, w); n > 0 {
		p.warnf("%s is being rolled out: its pods of a former template (%d) go, and only the present one's come back", p.Target, n)
	}
}

// warnUnexposed warns of ports that services send to and that nobody's list of
// ports has: the session would get nothing of them.
func (p *Plan) warnUnexposed(services []corev1.Service) {
	known := make(map[Port]bool)
	for _, e := range p.Ports {
		known[e.Remote] = true
	}
	for _, c := range running(p.Pod.Spec) {
		for _, cp := range c.Ports {
			known[Port(cp.ContainerPort)] = true
		}
	}
	for _, svc := range services {
		if !selects(svc, p.Pod.Labels) {
			continue
		}
		for _, sp := range svc.Spec.Ports {
			port := sp.TargetPort.IntVal
			if port == 0 && sp.TargetPort.Type == intstr.Int {
				port = sp.Port // what the API server fills in
			}
			tcp := sp.Protocol == "" || sp.Protocol == corev1.ProtocolTCP
			if !tcp || sp.TargetPort.Type == intstr.String || known[Port(port)] {
				continue
			}
			known[Port(port)] = true
			p.warnf("service %s sends to port %d, which no container declares: if it is %s's, add --expose %d", svc.Name, port, p.Container, port)
		}
	}
}
