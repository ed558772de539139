package k8s

import (
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
