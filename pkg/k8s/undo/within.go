package undo

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Within refuses a record that does more than records do, or does it in another
// namespace. Whoever may write Secrets in the namespace may have written it, and
// whoever runs "leave" may have more rights: a record must not lend them.
func (r Record) Within(namespace string) error {
	for _, request := range slices.Concat(r.Restore, r.Remove) {
		if !request.ordinary(namespace) {
			return fmt.Errorf("the undo record of session %s wants more than putting back what a session does: %s %s", r.Session, request.Method, request.Path)
		}
	}
	return nil
}

// ordinary says whether the request is of a kind that plans make.
func (q Request) ordinary(namespace string) bool {
	group, path, found := strings.Cut(q.Path, "/namespaces/")
	parts := strings.Split(path, "/")
	if !found || len(parts) < 3 || parts[0] != namespace {
		return false
	}
	resource, whole := parts[1], len(parts) == 3
	switch {
	case q.Method == http.MethodDelete:
		return whole && (group == "/api/v1" && slices.Contains([]string{"pods", "services", "secrets"}, resource) ||
			group == "/apis/coordination.k8s.io/v1" && resource == "leases")
	case q.Method != http.MethodPatch:
		return false
	case group == "/api/v1" && resource == "pods" && whole:
		return onlyMetadata(q.Body)
	case group == "/api/v1" && resource == "secrets" && whole:
		return onlyTests(q.Body)
	case group == "/apis/apps/v1" && whole:
		return onlyReplicas(q.Body)
	}
	return strings.HasPrefix(group, "/apis/") && len(parts) == 4 && parts[3] == "scale"
}

// onlyMetadata says whether a merge patch leaves the object's specification alone.
func onlyMetadata(body []byte) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return false
	}
	delete(fields, "metadata")
	return len(fields) == 0
}

// onlyReplicas says whether a JSON patch changes nothing but the number of replicas.
func onlyReplicas(body []byte) bool {
	var steps []struct {
		Op   string `json:"op"`
		Path string `json:"path"`
	}
	if json.Unmarshal(body, &steps) != nil {
		return false
	}
	for _, step := range steps {
		if step.Path != "/spec/replicas" || step.Op != "test" && step.Op != "replace" {
			return false
		}
	}
	return true
}

// onlyTests says whether a JSON patch changes nothing at all.
func onlyTests(body []byte) bool {
	var steps []struct {
		Op string `json:"op"`
	}
	if json.Unmarshal(body, &steps) != nil {
		return false
	}
	for _, step := range steps {
		if step.Op != "test" {
			return false
		}
	}
	return true
}
