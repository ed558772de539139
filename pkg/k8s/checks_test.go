package k8s

import (
	"context"
	"os"
	"reflect"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// TestRightsAreDocumented holds docs/rights.yaml to what doctor asks for, right by right.
func TestRightsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/rights.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.Role
	if err := yaml.UnmarshalStrict(text, &role); err != nil {
		t.Fatal(err)
	}
	var asked []rbacv1.PolicyRule
	for _, r := range rights {
		resource := r.resource
		if r.subresource != "" {
			resource += "/" + r.subresource
		}
		asked = append(asked, rbacv1.PolicyRule{APIGroups: []string{r.group}, Resources: []string{resource}, Verbs: r.verbs})
	}
	for _, rule := range role.Rules {
		if !slices.ContainsFunc(asked, func(a rbacv1.PolicyRule) bool { return reflect.DeepEqual(a, rule) }) {
			t.Errorf("docs/rights.yaml grants what nobody asks for: %v", rule)
		}
	}
	for _, a := range asked {
		if !slices.ContainsFunc(role.Rules, func(rule rbacv1.PolicyRule) bool { return reflect.DeepEqual(a, rule) }) {
			t.Errorf("docs/rights.yaml does not grant %v", a)
		}
	}
}

func TestChecksNameTheMissingRight(t *testing.T) {
	t.Parallel()
	s, c := startAPIServer(t)
	s.may = func(verb, resource string) bool {
		return resource != "pods/exec" && (resource != "pods" || verb != "watch")
	}
	for _, r := range rights {
		_, err := checkRight(t.Context(), c, r)
		var want string
		switch r.resource + r.subresource {
		case "pods":
			want = `you may not watch pods in namespace "ns" (for making the proxy)`
		case "podsexec":
			want = `you may not get, create pods/exec in namespace "ns" (for the environment that the image sets)`
		}
		if err == nil != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %q", r, err, want)
		}
	}
}

func TestChecksWithoutCluster(t *testing.T) {
	useKubeconfigs(t, "")
	checks := Checks(Config{})
	if _, err := checks[0].Run(t.Context()); err == nil || checks[0].Name != "kubeconfig" {
		t.Errorf("%s: %v", checks[0].Name, err)
	}
	for _, check := range checks[1:] {
		if _, err := check.Run(t.Context()); err == nil || err.Error() != "there is no cluster to ask" {
			t.Errorf("%s: %v", check.Name, err)
		}
	}
}

func TestChecksOfServer(t *testing.T) {
	t.Parallel()
	s, c := startAPIServer(t)
	s.put(t, "/version", map[string]any{"gitVersion": "v1.34.4"})
	if got, err := checkServer(t.Context(), c); err != nil || got != "v1.34.4 at "+c.Server() {
		t.Errorf("%q, %v", got, err)
	}
	for name, check := range map[string]func(context.Context, *Cluster) (string, error){"WebSocket": checkWebSocket, "SPDY": checkSPDY} {
		if got, err := check(t.Context(), c); err != nil || got != "as far as can be told without a running pod" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
