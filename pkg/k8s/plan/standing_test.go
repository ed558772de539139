package plan

import (
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The manifest in the docs makes a proxy that --deployment takes.
func TestStandingManifest(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/standing-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(page), "```yaml\n")
	manifest, _, closed := strings.Cut(block, "```")
	if !ok || !closed {
		t.Fatal("there is no manifest in the page")
	}
	objects := strings.Split(manifest, "\n---\n")
	var deployment appsv1.Deployment
	var service corev1.Service
	if err := yaml.UnmarshalStrict([]byte(objects[0]), &deployment); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict([]byte(objects[1]), &service); err != nil {
		t.Fatal(err)
	}
	template := deployment.Spec.Template
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name = deployment.Name + "-1"
	p, err := Make(Snapshot{Namespace: "shop", Standing: pod}, Request{
		Operation: Standing, Target: Target{Name: deployment.Name}, Session: "0a1b2c3d", Owner: "ada@laptop",
	})
	if err != nil {
		t.Fatal(err)
	}
	probe := template.Spec.Containers[0].ReadinessProbe.Exec.Command
	if p.AgentPort != StandingPort || probe[len(probe)-1] != "--port=24817" {
		t.Errorf("the agent's port is %d, and the probe asks with %s", p.AgentPort, probe)
	}
	if len(p.Ports) != 1 || int32(p.Ports[0].Remote) != service.Spec.Ports[0].TargetPort.IntVal || !selects(service, pod.Labels) {
		t.Errorf("the ports are %v, and the service is %+v", p.Ports, service.Spec)
	}
	if len(p.Record.Restore) != 0 || p.Pod.OwnerReferences != nil {
		t.Errorf("the session changes the pod: %+v", p.Record)
	}
}
