package k8s

import (
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A proxy whose image its node's cache doesn't give goes on with the registry's
// name of it, and says so once; one that it gives is left alone.
func TestStartCached(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lacking, image string
		warned         []string
	}{
		{"", "agent:1", nil},
		{"agent:1", "registry.example/agent:1", []string{"the proxy image comes from its registry: the node's image cache doesn't give it: not held here"}},
	} {
		w, c := newWorld(t)
		w.lacking = tt.lacking
		p := makePlan(t, c)
		var warned []string
		warn := func(line string) { warned = append(warned, line) }
		if err := errors.Join(c.Hold(t.Context(), p), c.StartCached(t.Context(), p, "registry.example/agent:1", tell(t), warn)); err != nil {
			t.Fatal(err)
		}
		var pod corev1.Pod
		if !w.at(podPath+p.Pod.Name, &pod) {
			t.Fatal("there is no proxy pod")
		}
		if got := pod.Spec.Containers[0].Image; got != tt.image || !slices.Equal(warned, tt.warned) {
			t.Errorf("without %q: the pod's image is %s, warned %q", tt.lacking, got, warned)
		}
		if n := slices.Index(w.changes(), "PATCH "+podPath+p.Pod.Name); (n >= 0) != (tt.lacking != "") {
			t.Errorf("without %q: changes %q", tt.lacking, w.changes())
		}
	}
}

func TestLastCause(t *testing.T) {
	t.Parallel()
	const image = "localhost:5780/a/b@sha256:12"
	for chain, want := range map[string]string{
		`rpc error: code = NotFound desc = failed to resolve reference "` + image + `": ` + image + `: not found`: "not found",
		`failed to pull and unpack image "` + image + `": no match for platform in manifest: not found`:           "no match for platform in manifest: not found",
		`failed to resolve reference "` + image + `": failed to do request: connection refused`:                   "failed to do request: connection refused",
		`back-off pulling image "` + image + `"`:                                                                  `back-off pulling image "` + image + `"`,
		"the registry is away":                                                                                    "the registry is away",
	} {
		if got := lastCause(chain, image); got != want {
			t.Errorf("of %q it is %q, want %q", chain, got, want)
		}
	}
}
