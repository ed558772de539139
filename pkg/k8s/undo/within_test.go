package undo

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestWithin(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		method, path, body string
		fine               bool
	}{
		"delete the proxy":              {"DELETE", "/api/v1/namespaces/ns/pods/web-x", "", true},
		"release the proxy":             {"PATCH", "/api/v1/namespaces/ns/pods/web-x", `{"metadata":{"labels":{"pod-template-hash":null}}}`, true},
		"scale back":                    {"PATCH", "/apis/apps/v1/namespaces/ns/deployments/web", `[{"op":"test","path":"/spec/replicas","value":1},{"op":"replace","path":"/spec/replicas","value":3}]`, true},
		"scale a rollout back":          {"PATCH", "/apis/argoproj.io/v1alpha1/namespaces/ns/rollouts/web/scale", `{"spec":{"replicas":3}}`, true},
		"another namespace":             {"DELETE", "/api/v1/namespaces/kube-system/pods/web-x", "", false},
		"all pods":                      {"DELETE", "/api/v1/namespaces/ns/pods", "", false},
		"the namespace":                 {"DELETE", "/api/v1/namespaces/ns", "", false},
		"a node":                        {"DELETE", "/api/v1/nodes/n", "", false},
		"a deployment":                  {"DELETE", "/apis/apps/v1/namespaces/ns/deployments/web", "", false},
		"another image":                 {"PATCH", "/apis/apps/v1/namespaces/ns/deployments/web", `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"evil"}]`, false},
		"a merge patch of a deployment": {"PATCH", "/apis/apps/v1/namespaces/ns/deployments/web", `{"spec":{"template":{}}}`, false},
		"another pod's image":           {"PATCH", "/api/v1/namespaces/ns/pods/web-x", `{"spec":{"containers":[{"name":"app","image":"evil"}]}}`, false},
		"a role":                        {"PATCH", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles/x", `[{"op":"replace","path":"/spec/replicas","value":3}]`, false},
		"a put":                         {"PUT", "/apis/apps/v1/namespaces/ns/deployments/web", `{}`, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			record := Record{Session: "5e55", Restore: []Request{{Method: test.method, Path: test.path, Body: json.RawMessage(test.body)}}}
			if err := record.Within("ns"); err == nil != test.fine {
				t.Errorf("%s %s %s: %v", test.method, test.path, test.body, err)
			}
		})
	}
}

// FuzzWithin: whatever a record says, nothing outside of its namespace is asked for.
func FuzzWithin(f *testing.F) {
	f.Add("DELETE", "/api/v1/namespaces/ns/pods/x", "")
	f.Add("PATCH", "/apis/apps/v1/namespaces/ns/deployments/web", `[{"op":"test","path":"/spec/replicas","value":1}]`)
	f.Add("PATCH", "/apis/x/v1/namespaces/other/namespaces/ns/x/y/scale", "{}")
	f.Fuzz(func(t *testing.T, method, path, body string) {
		request := Request{Method: method, Path: path, Body: json.RawMessage(body)}
		if !request.ordinary("ns") {
			return
		}
		if _, after, _ := strings.Cut(path, "/namespaces/"); !strings.HasPrefix(after, "ns/") {
			t.Errorf("%s %s is let through", method, path)
		}
	})
}
