package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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
	if pod.Labels == nil {
		pod.Labels = make(map[string]string)
	}
	for _, l := range controllerLabels {
		delete(pod.Labels, l)
	}
	if s.Workload.Kind == "StatefulSet" {
		asFirstPod(pod, s.Workload)
	}
	labelForServices(pod, s)
	return pod
}

// asFirstPod gives the proxy what a StatefulSet gives its first pod: its host
// name, labels and claims. Its name it can't have, or the StatefulSet would take
// it for its own and delete it.
func asFirstPod(pod *corev1.Pod, w *Workload) {
	name := fmt.Sprintf("%s-%d", w.Name, w.Ordinal)
	pod.Spec.Hostname, pod.Spec.Subdomain = name, w.ServiceName
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

// labelForServices gives the proxy what a service asks for and only the running
// pods have: the hash by which an Argo Rollout tells its stable pods from its
// canaries, or a label that a webhook or a human has put on them. What the
// template itself says is never changed.
func labelForServices(pod *corev1.Pod, s Snapshot) {
	for _, svc := range s.Services {
		for _, original := range s.Originals {
			if !selects(svc, original.Labels) {
				continue
			}
			wanted := merged(svc.Spec.Selector, pod.Labels)
			if selects(svc, wanted) {
				pod.Labels = wanted
			}
		}
	}
}

// selects tells whether a service sends its traffic to pods with the labels.
func selects(svc corev1.Service, labels map[string]string) bool {
	if len(svc.Spec.Selector) == 0 {
		return false
	}
	for k, v := range svc.Spec.Selector {
		if had, ok := labels[k]; !ok || had != v {
			return false
		}
	}
	return true
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
// all else as it was, but for what a pod that is not started anew can't have.
func (p *Plan) makeProxy(s Snapshot, r Request) error {
	spec := &p.Pod.Spec
	p.AgentPort = agentPort(r, *spec, p.Ports)
	p.Pod.Labels[LabelSession], p.Pod.Labels[LabelRole] = string(r.Session), "proxy"
	p.Pod.Annotations = merged(p.Pod.Annotations, p.annotations(r))
	spec.RestartPolicy = corev1.RestartPolicyNever
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			list[i].ResizePolicy = nil // RestartContainer is not valid beside Never
		}
	}
	if r.ServiceAccount != "" {
		spec.ServiceAccountName, spec.DeprecatedServiceAccount = r.ServiceAccount, ""
	}
	c := p.container()
	original := *c.DeepCopy()
	p.asAgent(c, r)
	spec.Volumes = append(spec.Volumes, corev1.Volume{
		Name:         sessionVolume,
		VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: r.Target.Resource(), DefaultMode: new(int32(0o444))}},
	})
	if err := p.giveMemory(c, s.LimitRanges); err != nil {
		return err
	}
	p.chooseUser(c, s.Originals)
	if r.ReadImage && r.Operation == Swap {
		p.readImage(original, c)
	}
	return p.allowLowPorts(c, r)
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
