package k8s

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

func target(t *testing.T, text string) plan.Target {
	t.Helper()
	parsed, err := plan.ParseTarget(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestSnapshotWithoutOptionalRights(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	w.refuse = func(_, path string) (int, string) {
		for _, resource := range []string{"services", "resourcequotas", "limitranges", "persistentvolumeclaims", "horizontalpodautoscalers", "poddisruptionbudgets"} {
			if strings.HasSuffix(path, "/"+resource) {
				return 403, "no"
			}
		}
		return 0, ""
	}
	s, err := c.Snapshot(t.Context(), swapRequest())
	if err != nil {
		t.Fatal(err)
	}
	if s.Workload.Replicas != 2 || s.Workload.ReplicaSet == nil || s.Workload.ReplicaSet.Hash != "5d" || len(s.Originals) != 2 {
		t.Errorf("snapshot %+v", s)
	}
}

func TestSnapshotRefuses(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	w.put(t, "/apis/apps/v1/namespaces/ns/statefulsets/db", map[string]any{
		"kind": "StatefulSet", "apiVersion": "apps/v1", "metadata": map[string]any{"name": "db"},
		"spec": map[string]any{
			"persistentVolumeClaimRetentionPolicy": map[string]any{"whenScaled": "Delete"},
			"template":                             map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "db"}}}},
		},
	})
	w.put(t, "/apis/apps/v1/namespaces/ns/deployments/empty", map[string]any{
		"kind": "Deployment", "apiVersion": "apps/v1", "metadata": map[string]any{"name": "empty"}, "spec": map[string]any{},
	})
	for name, want := range map[string]string{
		"wob":               `there is no deployment "wob" in namespace "ns"; there are: empty, web`,
		"statefulset/web":   `there is no statefulset "web" in namespace "ns"; there are: db`,
		"statefulset/db":    `StatefulSet "db" deletes its volumes when it is scaled down`,
		"replicaset/web-5d": `replicaset/web-5d belongs to Deployment "web"`,
		"empty":             `Deployment "empty" has no pod template`,
	} {
		request := swapRequest()
		request.Target = target(t, name)
		if _, err := c.Snapshot(t.Context(), request); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := c.Snapshot(t.Context(), plan.Request{Operation: plan.Swap, Target: target(t, "gadget/x")}); err == nil || !strings.Contains(err.Error(), `knows no kind "gadget"`) {
		t.Errorf("an unknown kind: %v", err)
	}
}

// TestRolloutThatRefers: the pod template of an Argo Rollout may be a Deployment's.
func TestRolloutThatRefers(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	w.put(t, "/apis", map[string]any{"kind": "APIGroupList", "apiVersion": "v1", "groups": []any{
		group("argoproj.io", "v1alpha1"), group("apps", "v1"),
	}})
	w.put(t, "/apis/argoproj.io/v1alpha1", resources("argoproj.io/v1alpha1", "rollouts", "Rollout"))
	w.put(t, "/apis/apps/v1", resources("apps/v1", "deployments", "Deployment"))
	w.put(t, "/apis/argoproj.io/v1alpha1/namespaces/ns/rollouts/shop", map[string]any{
		"kind": "Rollout", "apiVersion": "argoproj.io/v1alpha1", "metadata": map[string]any{"name": "shop"},
		"spec": map[string]any{"replicas": 3, "workloadRef": map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
	})
	got, err := c.workload(t.Context(), target(t, "rollouts.argoproj.io/shop"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Kind != "Rollout" || got.Resource != "rollouts" || got.Replicas != 3 || got.Template.Spec.Containers[0].Image != "app:1" || got.Selector.MatchLabels["app"] != "web" {
		t.Errorf("workload %+v", got)
	}
}

func group(name, version string) map[string]any {
	v := map[string]any{"groupVersion": name + "/" + version, "version": version}
	return map[string]any{"name": name, "versions": []any{v}, "preferredVersion": v}
}

func resources(groupVersion, plural, kind string) map[string]any {
	return map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": groupVersion, "resources": []any{
		map[string]any{"name": plural, "singularName": strings.ToLower(kind), "kind": kind, "namespaced": true, "verbs": []any{"get", "list"}},
	}}
}

func TestSnapshotOfNew(t *testing.T) {
	t.Parallel()
	_, c := newWorld(t)
	for name, want := range map[string]string{"web": `a service "web"`, "fresh": ""} {
		s, err := c.Snapshot(t.Context(), plan.Request{Operation: plan.New, Target: target(t, name), ServiceAccount: "builder"})
		if err != nil || s.Taken != want || s.ServiceAccounts == nil {
			t.Errorf("%s: taken %q, service accounts %v, %v", name, s.Taken, s.ServiceAccounts, err)
		}
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	w.put(t, "/apis/apps/v1/namespaces/ns/replicasets/alone", map[string]any{"kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": map[string]any{"name": "alone"}})
	for prefix, want := range map[string]string{
		"":             "web statefulset/ replicaset/",
		"w":            "web",
		"web:":         "web:app",
		"web:x":        "",
		"statefulset/": "",
		"rs/":          "rs/alone", // a Deployment's own is none to choose
	} {
		got, err := c.Targets(t.Context(), prefix)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v, want %q", prefix, got, err, want)
		}
	}
}

func TestPortForwardSaysWhichPodIsMissing(t *testing.T) {
	t.Parallel()
	_, c := startAPIServer(t)
	_, err := c.PortForward(t.Context(), "gone", 80)
	if err == nil || !strings.Contains(err.Error(), "port-forwarding to gone:80: /api/v1/namespaces/ns/pods/gone/portforward not found") {
		t.Errorf("%v", err)
	}
}

func TestProxyIsDeletedByWhom(t *testing.T) {
	t.Parallel()
	yes := true
	adopted := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Controller: &yes}}}}
	if got := byWhom(adopted); !strings.Contains(got, "has the workload been changed") {
		t.Errorf("%q", got)
	}
	adopted.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Message: "Eviction API: evicting"}}
	if got := byWhom(adopted); got != ": eviction API: evicting" {
		t.Errorf("%q", got)
	}
}
