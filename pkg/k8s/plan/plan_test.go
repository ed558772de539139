package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func request(op Operation, session string) Request {
	return Request{
		Operation: op, Target: Target{Kind: KindDeployment, Name: "web"}, Session: SessionID(session), Owner: "ada@laptop",
		Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), AgentImage: "agent:1",
	}
}

func deployment(spec corev1.PodSpec) *Workload {
	return &Workload{
		APIVersion: "apps/v1", Kind: "Deployment", Resource: "deployments", Name: "web", UID: "u", Replicas: 1,
		Template: corev1.PodTemplateSpec{Spec: spec}, ReplicaSet: &ReplicaSet{Name: "web-1", UID: "rs", Hash: "1"},
	}
}

// The Secret owns what the session makes, and controls the pod alone; a standing
// proxy it does not own.
func TestOwn(t *testing.T) {
	t.Parallel()
	app := corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}
	standing := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Args: []string{"serve", "--standing"}}}}}
	for _, op := range []Operation{Swap, New, Standing} {
		r := request(op, "0a1b2c3d")
		r.Expose = []Expose{{8080, 80}}
		p, err := Make(Snapshot{Namespace: "shop", Workload: deployment(app), Standing: standing}, r)
		if err != nil {
			t.Fatal(err)
		}
		p.Own("uid")
		owners, controls := p.Pod.OwnerReferences, op != Standing
		if controls && (len(owners) != 1 || owners[0].UID != "uid" || owners[0].Controller == nil || !*owners[0].Controller) || !controls && owners != nil {
			t.Errorf("%s: the pod's owners are %+v", op, owners)
		}
		if len(p.Lease.OwnerReferences) != 1 || p.Lease.OwnerReferences[0].Controller != nil {
			t.Errorf("%s: the lease's owners are %+v", op, p.Lease.OwnerReferences)
		}
		if (p.Service != nil) != (op == New) || p.Service != nil && len(p.Service.OwnerReferences) != 1 {
			t.Errorf("%s: the service is %+v", op, p.Service)
		}
	}
}

// The agent's port is none that the pod uses, whatever the session.
func TestAgentPort(t *testing.T) {
	t.Parallel()
	var ports []corev1.ContainerPort
	for n := int32(firstAgentPort); n < lastAgentPort; n++ { // all but the last
		ports = append(ports, corev1.ContainerPort{ContainerPort: n})
	}
	spec := corev1.PodSpec{InitContainers: []corev1.Container{{Ports: ports}}}
	seen := make(map[Port]bool)
	for n := range 100 {
		r := request(Swap, fmt.Sprintf("%08x", n))
		if port := agentPort(r, spec, nil); port != lastAgentPort {
			t.Errorf("the port is %d", port)
		}
		port := agentPort(r, corev1.PodSpec{}, nil)
		if port < firstAgentPort || port > lastAgentPort {
			t.Errorf("the port is %d", port)
		}
		seen[port] = true
	}
	if len(seen) < 95 {
		t.Errorf("100 sessions have %d ports", len(seen))
	}
}

// Whatever a pod template says, Make ends in a plan that holds together or in a
// refusal with a reason, and changes nothing of what it was given.
func FuzzMake(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var d appsv1.Deployment
		first, _, _ := strings.Cut(string(txtar.Parse(text).Files[1].Data), "\n---\n")
		if yaml.Unmarshal([]byte(first), &d) != nil {
			continue
		}
		spec, err := json.Marshal(d.Spec.Template.Spec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(spec, uint16(8080))
	}
	f.Fuzz(func(t *testing.T, text []byte, port uint16) {
		var spec corev1.PodSpec
		if json.Unmarshal(text, &spec) != nil || port == 0 {
			return
		}
		s := Snapshot{Namespace: "shop", Workload: deployment(spec)}
		r := request(Swap, "0a1b2c3d")
		r.Expose = []Expose{{Port(port), Port(port)}}
		before := s.Workload.Template.DeepCopy()
		p, err := Make(s, r)
		if !reflect.DeepEqual(*before, s.Workload.Template) {
			t.Error("the template was changed")
		}
		if err != nil {
			if no, ok := errors.AsType[*Refusal](err); !ok || no.Reason == "" {
				t.Errorf("the error is %v", err)
			}
			return
		}
		checkRecord(t, p)
		if _, err := p.YAML(); err != nil {
			t.Error(err)
		}
		agents := 0
		for _, c := range p.Pod.Spec.Containers {
			if c.Image == r.AgentImage && slices.Contains(c.Command, "serve") && c.Args == nil && c.LivenessProbe == nil && c.Lifecycle == nil {
				agents++
			}
		}
		if agents != 1 || len(p.Pod.Spec.Containers) != len(spec.Containers) || p.Pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
			t.Errorf("%d agents in %+v", agents, p.Pod.Spec)
		}
	})
}
