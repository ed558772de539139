package k8s

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// waiting is a pod on a node, whose containers are called by the keys.
func waiting(states map[string]corev1.ContainerState, more ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-x"},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever},
		Status:     corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}},
	}
	for _, name := range []string{"init", "app", "sidecar"} {
		state, ok := states[name]
		if !ok {
			continue
		}
		status := corev1.ContainerStatus{Name: name, State: state}
		if name == "init" {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: name, Image: "image:1"})
			pod.Status.InitContainerStatuses = append(pod.Status.InitContainerStatuses, status)
			continue
		}
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "image:1"})
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, status)
	}
	for _, change := range more {
		change(pod)
	}
	return pod
}

func because(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func ended(code int32) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error"}}
}

var (
	running  = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	creating = because("ContainerCreating", "")
)

func warning(reason, message string, count int32) corev1.Event {
	return corev1.Event{Type: corev1.EventTypeWarning, Reason: reason, Message: message, Count: count}
}

type states = map[string]corev1.ContainerState

func TestWhyNotReady(t *testing.T) {
	t.Parallel()
	always := corev1.ContainerRestartPolicyAlways
	pulls := warning("Failed", `Failed to pull image "image:1": rpc error: i/o timeout`, 1)
	tests := map[string]struct {
		pod    *corev1.Pod
		events []corev1.Event
		line   string // part of what is told
		fails  string // part of the error, if it is one
		hint   string
	}{
		"not scheduled yet": {pod: &corev1.Pod{}, line: "waiting for a node"},
		"unschedulable": {
			pod: waiting(nil, func(p *corev1.Pod) {
				p.Status.Conditions[0] = corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/2 nodes are available: 2 Insufficient cpu."}
			}),
			line: "waiting for a node: 0/2 nodes are available: 2 Insufficient cpu",
		},
		"scheduling gate": {
			pod:  waiting(nil, func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "queue"}} }),
			line: `waiting for scheduling gate "queue" to be lifted`,
		},
		"pulling":           {pod: waiting(states{"app": creating}), events: []corev1.Event{{Reason: "Pulling", Message: `Pulling image "image:1"`}}, line: `pulling image "image:1"`},
		"volume":            {pod: waiting(states{"app": creating}), events: []corev1.Event{warning("FailedMount", `MountVolume.SetUp failed for volume "x": configmap "y" not found`, 3)}, line: `waiting for a volume: MountVolume.SetUp failed for volume "x": configmap "y" not found`},
		"first failed pull": {pod: waiting(states{"app": because("ErrImagePull", "i/o timeout")}), events: []corev1.Event{pulls}, line: `image "image:1" cannot be pulled: rpc error: i/o timeout; trying again`},
		"third failed pull": {
			pod:    waiting(states{"app": because("ImagePullBackOff", "Back-off pulling image")}),
			events: []corev1.Event{pulls, warning("Failed", "Error: ErrImagePull", 3), pulls, pulls},
			fails:  `pod "web-x" cannot start: image "image:1" cannot be pulled: rpc error: i/o timeout`,
			hint:   `Failed to pull image "image:1"`,
		},
		"no such image": {
			pod:    waiting(states{"app": because("ImagePullBackOff", "")}),
			events: []corev1.Event{warning("Failed", `Failed to pull image "image:1": manifest unknown`, 2)},
			fails:  "manifest unknown",
		},
		"bad image name": {pod: waiting(states{"app": because("InvalidImageName", `couldn't parse image name`)}), fails: `image "image:1" cannot be used: couldn't parse image name`},
		"missing config": {pod: waiting(states{"app": because("CreateContainerConfigError", `secret "s" not found`)}), fails: `container "app" cannot be made: secret "s" not found`},
		"init runs":      {pod: waiting(states{"init": running, "app": because("PodInitializing", "")}), line: `waiting for init container "init" to finish`},
		"init failed":    {pod: waiting(states{"init": ended(3), "app": because("PodInitializing", "")}), fails: `init container "init" ended with exit code 3`},
		"init done":      {pod: waiting(states{"init": ended(0), "app": creating}), events: []corev1.Event{{Reason: "Scheduled"}}, line: "waiting for the container to start"},
		"sidecar starts": {
			pod:  waiting(states{"init": running, "app": because("PodInitializing", "")}, func(p *corev1.Pod) { p.Spec.InitContainers[0].RestartPolicy = &always }),
			line: `waiting for sidecar "init" to start`,
		},
		"other container ended": {pod: waiting(states{"app": running, "sidecar": ended(1)}), fails: `container "sidecar" ended with exit code 1`},
		"other container not ready": {
			pod: waiting(states{"app": running, "sidecar": running}),
			events: []corev1.Event{{
				Reason: "Unhealthy", Message: "Readiness probe failed: HTTP probe failed with statuscode: 503\n",
				InvolvedObject: corev1.ObjectReference{FieldPath: "spec.containers{sidecar}"},
			}},
			line: `waiting for container "sidecar" to be ready: readiness probe failed: HTTP probe failed with statuscode: 503`,
		},
		"gate": {
			pod:  waiting(states{"app": running}, func(p *corev1.Pod) { p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "lb/ready"}} }),
			line: `waiting for the pod's readiness gate "lb/ready"`,
		},
		"the agent's readiness is the session's": {pod: waiting(states{"app": running})},
		"evicted": {
			pod: waiting(nil, func(p *corev1.Pod) {
				p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "The node was low on resource: memory."
			}),
			fails: "it has ended: Evicted: the node was low on resource: memory",
		},
		"failed":  {pod: waiting(states{"app": ended(137)}, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), fails: `container "app" ended with exit code 137`},
		"deleted": {pod: waiting(nil, func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Now()} }), fails: "it is being deleted by somebody else"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			line, err := whyNotReady(test.pod, "app", test.events)
			if line != test.line {
				t.Errorf("told %q, want %q", line, test.line)
			}
			switch {
			case test.fails == "":
				if err != nil {
					t.Errorf("failed: %v", err)
				}
				return
			case err == nil || !strings.Contains(err.Error(), test.fails):
				t.Fatalf("error %v, want %q", err, test.fails)
			}
			if hint := err.(interface{ Hint() string }).Hint(); !strings.Contains(hint, test.hint) || strings.Contains(hint, "Error: ErrImagePull") {
				t.Errorf("hint %q, want %q", hint, test.hint)
			}
		})
	}
}

func TestStartProxyTellsWhyItCannot(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	w.mu.Lock()
	w.without = true
	w.mu.Unlock()
	p := makePlan(t, c)
	if err := c.Hold(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.react = func(_ *apiServer, change string) {
		var pod corev1.Pod
		if path := podPath + p.Pod.Name; strings.HasPrefix(change, "POST") && w.atLocked(path, &pod) {
			pod.Status = waiting(states{"app": because("CreateContainerConfigError", `configmap "x" not found`)}).Status
			w.putLocked("MODIFIED", path, unstruct(&pod))
		}
	}
	w.mu.Unlock()
	err := c.StartProxy(t.Context(), p, tell(t))
	if err == nil || !strings.Contains(err.Error(), `configmap "x" not found`) {
		t.Errorf("starting: %v", err)
	}
}

func TestEventsAreInOrder(t *testing.T) {
	t.Parallel()
	at := func(second int64) metav1.Time { return metav1.Unix(second, 0) }
	events := []corev1.Event{
		{Reason: "c", LastTimestamp: at(30)},
		{Reason: "a", ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(10)}},
		{Reason: "d", LastTimestamp: at(5), Series: &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(time.Unix(40, 0))}},
		{Reason: "b", EventTime: metav1.NewMicroTime(time.Unix(20, 0))},
	}
	sortEvents(events)
	got := ""
	for _, e := range events {
		got += e.Reason
	}
	if got != "abcd" {
		t.Errorf("order %q", got)
	}
}
