package plan

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/telepresence/telepresence/pkg/k8s/undo"
)

// checkCached makes the plan once more, with the name by which nodes pull the
// image from their own cache. Nothing but that name must be different.
func checkCached(t *testing.T, s Snapshot, r Request, without string) {
	t.Helper()
	image := r.AgentImage
	r.AgentImage = "localhost:5780/registry.example/telepresence-agent@sha256:" + strings.Repeat("0", 64)
	p, err := Make(s, r)
	if err != nil {
		t.Fatalf("with the image cache: %v", err)
	}
	if got := strings.ReplaceAll(printedPlan(t, p), r.AgentImage, image); got != without {
		t.Errorf("with the image cache it is\n%s\nwant\n%s", got, without)
	}
}

// checkKept compares the proxy pod with the template that it was made from, and
// takes away, one by one, the differences that there are to be. None must be
// left.
func checkKept(t *testing.T, s Snapshot, p *Plan) {
	t.Helper()
	if p.Operation != Swap {
		return
	}
	want := s.Workload.Template.Spec.DeepCopy()
	got := p.Pod.Spec.DeepCopy()
	for _, spec := range []*corev1.PodSpec{want, got} {
		spec.RestartPolicy = ""
		spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(c corev1.Container) bool {
			return c.Name == "telepresence-copy" || c.Name == "telepresence-image"
		})
		if len(spec.InitContainers) == 0 {
			spec.InitContainers = nil
		}
		for i := range spec.InitContainers {
			spec.InitContainers[i].ResizePolicy = nil
		}
		for i := range spec.Containers {
			spec.Containers[i].ResizePolicy = nil
			if spec.Containers[i].Name == p.Container {
				withoutProgram(&spec.Containers[i])
			}
		}
		spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool {
			return v.Name == sessionVolume || v.Name == imageVolume || slices.ContainsFunc(s.Workload.VolumeClaimTemplates, func(c corev1.PersistentVolumeClaim) bool { return c.Name == v.Name })
		})
		if sc := spec.SecurityContext; sc != nil {
			sc.Sysctls = slices.DeleteFunc(sc.Sysctls, func(s corev1.Sysctl) bool { return s.Name == lowPorts })
			if len(sc.Sysctls) == 0 {
				sc.Sysctls = nil
			}
			if reflect.DeepEqual(*sc, corev1.PodSecurityContext{}) {
				spec.SecurityContext = nil
			}
		}
		if len(spec.Volumes) == 0 {
			spec.Volumes = nil
		}
	}
	if s.Workload.Kind == "StatefulSet" {
		got.Hostname, got.Subdomain = want.Hostname, want.Subdomain
	}
	got.ServiceAccountName, want.ServiceAccountName = "", ""
	if !reflect.DeepEqual(got, want) {
		t.Errorf("more was changed than is to be:\n%+v\nfrom\n%+v", got, want)
	}
	for key, value := range s.Workload.Template.Annotations {
		if p.Pod.Annotations[key] != value {
			t.Errorf("annotation %s is %q", key, p.Pod.Annotations[key])
		}
	}
	for key, value := range s.Workload.Template.Labels {
		if !slices.Contains(controllerLabels, key) && p.Pod.Labels[key] != value {
			t.Errorf("label %s is %q", key, p.Pod.Labels[key])
		}
	}
}

// withoutProgram takes away what a proxy changes in its container.
func withoutProgram(c *corev1.Container) {
	c.Image, c.ImagePullPolicy, c.Command, c.Args, c.WorkingDir, c.Lifecycle = "", "", nil, nil, "", nil
	c.LivenessProbe, c.ReadinessProbe, c.StartupProbe = nil, nil, nil
	c.Stdin, c.StdinOnce, c.TTY, c.RestartPolicy, c.RestartPolicyRules = false, false, false, nil, nil
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == sessionVolume || m.Name == imageVolume })
	if len(c.VolumeMounts) == 0 {
		c.VolumeMounts = nil
	}
	if limit := c.Resources.Limits.Memory(); limit.Cmp(leastMemory()) <= 0 {
		delete(c.Resources.Limits, corev1.ResourceMemory)
		delete(c.Resources.Requests, corev1.ResourceMemory)
	}
	if len(c.Resources.Limits) == 0 {
		c.Resources.Limits = nil
	}
	if len(c.Resources.Requests) == 0 {
		c.Resources.Requests = nil
	}
	if sc := c.SecurityContext; sc != nil && sc.RunAsUser != nil && *sc.RunAsUser == nobody {
		sc.RunAsUser = nil
		if reflect.DeepEqual(*sc, corev1.SecurityContext{}) {
			c.SecurityContext = nil
		}
	}
}

// checkRecord wants a record that can be read again, that leave would carry out,
// and that takes the Secret away last.
func checkRecord(t *testing.T, p *Plan) {
	t.Helper()
	record, err := undo.Parse(p.Secret.Data[KeyUndo])
	if err != nil {
		t.Fatal(err)
	}
	if err := record.Within("shop"); err != nil {
		t.Error(err)
	}
	last := record.Remove[len(record.Remove)-1]
	if last.Path != "/api/v1/namespaces/shop/secrets/"+p.Secret.Name || last.Method != http.MethodDelete {
		t.Errorf("the last request is %s %s", last.Method, last.Path)
	}
	if p.AgentPort == 0 || slices.ContainsFunc(p.Ports, func(e Expose) bool { return e.Remote == p.AgentPort }) {
		t.Errorf("the agent's port is %d", p.AgentPort)
	}
}
