package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The least memory that the agent starts in.
var leastMemory = resource.MustParse("16Mi")

// freshContainer is the name of a new pod's only container.
const freshContainer = "telepresence"

// uid is a UID as the API's types have it.
func uid(text string) types.UID { return types.UID(text) }

// template is the pod that the workload's template asks for, under a name that
// tells whose proxy it is.
func template(s Snapshot, r Request) *corev1.Pod {
	t := s.Workload.Template.DeepCopy()
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        podName(r.Target.Name, r.Session),
			Namespace:   s.Namespace,
			Labels:      t.Labels,
			Annotations: t.Annotations,
		},
		Spec: t.Spec,
	}
	for _, l := range controllerLabels {
		delete(pod.Labels, l)
	}
	if s.Workload.Kind == "StatefulSet" {
		asFirstPod(pod, s.Workload)
	}
	return pod
}

// asFirstPod gives the proxy what a StatefulSet gives its first pod: its host
// name, labels and claims. Its name it can't have, or the StatefulSet would take
// it for its own and delete it.
func asFirstPod(pod *corev1.Pod, w *Workload) {
	name := fmt.Sprintf("%s-%d", w.Name, w.Ordinal)
	pod.Spec.Hostname, pod.Spec.Subdomain = name, w.ServiceName
	if pod.Labels == nil {
		pod.Labels = make(map[string]string)
	}
	pod.Labels["statefulset.kubernetes.io/pod-name"] = name
	pod.Labels["apps.kubernetes.io/pod-index"] = strconv.Itoa(int(w.Ordinal))
	for _, c := range w.VolumeClaimTemplates {
		source := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name + "-" + name}}
		v := corev1.Volume{Name: c.Name, VolumeSource: source}
		if i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == c.Name }); i >= 0 {
			pod.Spec.Volumes[i] = v
		} else {
			pod.Spec.Volumes = append(pod.Spec.Volumes, v)
		}
	}
}

// freshPod is the pod of --new-deployment.
func freshPod(s Snapshot, r Request) *corev1.Pod {
	ports := make([]corev1.ContainerPort, len(r.Expose))
	for i, e := range r.Expose {
		ports[i] = corev1.ContainerPort{ContainerPort: int32(e.Remote), Protocol: corev1.ProtocolTCP}
	}
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: podName(r.Target.Name, r.Session), Namespace: s.Namespace,
			Labels: map[string]string{"app": r.Target.Name},
		},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), RunAsUser: new(int64(65534)), RunAsGroup: new(int64(65534)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: freshContainer, Ports: ports,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// podName is a pod's name that tells what it stands in for; 63 characters at
// most, as it is the pod's host name too.
func podName(workload string, id SessionID) string {
	suffix := "-" + prefix + string(id)
	if most := 63 - len(suffix); len(workload) > most {
		workload = workload[:most]
	}
	for workload != "" && (workload[len(workload)-1] == '-' || workload[len(workload)-1] == '.') {
		workload = workload[:len(workload)-1]
	}
	return workload + suffix
}

// makeProxy turns the pod into the proxy: the agent in the one container, and
// all else as it was.
func (p *Plan) makeProxy(r Request) {
	pod := p.Pod
	p.AgentPort = agentPort(r.Session, pod.Spec, p.Ports)
	if pod.Labels == nil {
		pod.Labels = make(map[string]string)
	}
	pod.Labels[LabelSession], pod.Labels[LabelRole] = string(r.Session), "proxy"
	pod.Annotations = merged(pod.Annotations, p.annotations(r))
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	if r.ServiceAccount != "" {
		pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = r.ServiceAccount, ""
	}
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == p.Container {
			p.asAgent(c, r)
		}
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name:         sessionVolume,
		VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: r.Target.Resource(), DefaultMode: new(int32(0o444))}},
	})
	p.allowLowPorts()
}

// asAgent turns one container into the agent's. What belongs to the original
// program goes: its command, its probes, its hooks. What the pod gives it stays:
// environment, ports, mounts, resources, security context.
func (p *Plan) asAgent(c *corev1.Container, r Request) {
	c.Image, c.ImagePullPolicy = r.AgentImage, corev1.PullIfNotPresent
	port := fmt.Sprintf("--port=%d", p.AgentPort)
	c.Command = []string{"/telepresence-agent", "serve", port, "--grace=" + r.Grace.String()}
	c.Args, c.WorkingDir, c.Lifecycle = nil, "", nil
	c.LivenessProbe, c.StartupProbe, c.ResizePolicy = nil, nil, nil
	c.Stdin, c.StdinOnce, c.TTY = false, false, false
	c.RestartPolicy, c.RestartPolicyRules = nil, nil
	c.ReadinessProbe = &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/telepresence-agent", "ready", port}}},
		PeriodSeconds:    1,
		TimeoutSeconds:   5,
		FailureThreshold: 3,
	}
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: sessionVolume, MountPath: SessionDir, ReadOnly: true})
	if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok && limit.Cmp(leastMemory) < 0 {
		c.Resources.Limits = maps.Clone(c.Resources.Limits)
		c.Resources.Limits[corev1.ResourceMemory] = leastMemory
		p.Warnings = append(p.Warnings, fmt.Sprintf("container %s may use %s of memory: the proxy needs %s, and gets it", c.Name, limit.String(), leastMemory.String()))
	}
	if p.Operation == New {
		c.Resources = corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: leastMemory,
		}}
	}
}

// lowPorts is the sysctl that says from which port on anyone may listen. It is
// one of the safe ones, and the pod's own
// (https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/).
const lowPorts = "net.ipv4.ip_unprivileged_port_start"

// allowLowPorts lets the agent, which has no capability, listen on port 80. A
// pod in the node's network namespace can't have a sysctl of its own.
func (p *Plan) allowLowPorts() {
	spec := &p.Pod.Spec
	low := slices.ContainsFunc(p.Ports, func(e Expose) bool { return e.Remote < 1024 })
	if !low || spec.HostNetwork {
		return
	}
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	set := corev1.Sysctl{Name: lowPorts, Value: "0"}
	list := spec.SecurityContext.Sysctls
	if i := slices.IndexFunc(list, func(s corev1.Sysctl) bool { return s.Name == lowPorts }); i >= 0 {
		list[i] = set
		return
	}
	spec.SecurityContext.Sysctls = append(list, set)
}

// annotations say, to whoever looks at an object of the session's, whose it is.
func (p *Plan) annotations(r Request) map[string]string {
	return map[string]string{
		AnnotationOwner:     r.Owner,
		AnnotationWorkload:  r.Target.String(),
		AnnotationContainer: p.Container,
		AnnotationSince:     r.Now.UTC().Format("2006-01-02T15:04:05Z"),
	}
}

func merged(a, b map[string]string) map[string]string {
	m := make(map[string]string, len(a)+len(b))
	maps.Copy(m, a)
	maps.Copy(m, b)
	return m
}
