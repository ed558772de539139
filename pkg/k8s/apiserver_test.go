package k8s

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// apiServer is a small API server: it keeps objects by their paths, answers get, list, watch, create, patch and delete, and knows
// no kind. What controllers and kubelets do is a function that is called after each change.
type apiServer struct {
	mu      sync.Mutex // guards what follows
	objects map[string]*unstructured.Unstructured
	version int
	history []event // what watches that begin at an older version are told first
	watches []chan event
	asked   []string // "PATCH /apis/apps/v1/namespaces/ns/deployments/web"
	react   func(*apiServer, string)
	refuse  func(method, path string) (status int, message string)

	may     func(verb, resource string) bool
	closing chan struct{} // closed when all watches are to end
}

type event struct {
	Type    string                     `json:"type"`
	Object  *unstructured.Unstructured `json:"object"`
	path    string
	version int
}

func startAPIServer(t *testing.T) (*apiServer, *Cluster) {
	t.Helper()
	s := &apiServer{objects: map[string]*unstructured.Unstructured{}, closing: make(chan struct{})}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		close(s.closing)
		server.Close()
	})
	c, err := connect(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}, "test", "ns")
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if r.URL.Query().Get("watch") != "" {
		s.watch(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dry := r.URL.Query().Get("dryRun") != ""
	if !dry {
		s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	}
	if s.refuse != nil {
		if status, message := s.refuse(r.Method, r.URL.Path); status != 0 {
			refuse(w, status, message)
			return
		}
	}
	if dry { // what would come of it nobody looks at
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"dry"}}`) //nolint:errcheck // the client sees
		return
	}
	status, answer := s.answerLocked(r, body)
	if status >= 300 {
		refuse(w, status, fmt.Sprint(answer))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer) //nolint:errcheck // the client sees
	if s.react != nil && r.Method != http.MethodGet {
		s.react(s, r.Method+" "+r.URL.Path)
	}
}

// refuse answers as an API server does.
func refuse(w http.ResponseWriter, status int, message string) {
	reasons := map[int]string{400: "BadRequest", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 422: "Invalid", 401: "Unauthorized", 503: "ServiceUnavailable"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{ //nolint:errcheck // the client sees
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reasons[status], "message": message,
	})
}

func (s *apiServer) answerLocked(r *http.Request, body []byte) (int, any) {
	path := r.URL.Path
	switch r.Method {
	case http.MethodGet:
		if object := s.objects[path]; object != nil {
			return 200, object
		}
		if collection(path) {
			return 200, s.listLocked(path, r.URL.Query().Get("labelSelector"))
		}
		return 404, path + " not found"
	case http.MethodPost:
		if strings.HasSuffix(path, "/selfsubjectaccessreviews") {
			return 201, s.review(body)
		}
		if strings.HasSuffix(path, "/portforward") {
			return 404, path + " not found"
		}
		object := &unstructured.Unstructured{}
		if err := json.Unmarshal(body, &object.Object); err != nil {
			return 400, err
		}
		path += "/" + object.GetName()
		if s.objects[path] != nil {
			return 409, path + " already exists"
		}
		s.putLocked("ADDED", path, object)
		return 201, object
	case http.MethodPatch:
		return s.patchLocked(path, r.Header.Get("Content-Type"), body)
	case http.MethodDelete:
		object := s.objects[path]
		if object == nil {
			return 404, path + " not found"
		}
		s.deleteLocked(path)
		return 200, object
	}
	return 405, r.Method
}

// review lets the user do what s.may says.
func (s *apiServer) review(body []byte) any {
	var review authorizationv1.SelfSubjectAccessReview
	if err := json.Unmarshal(body, &review); err != nil {
		return err
	}
	a := review.Spec.ResourceAttributes
	review.Status.Allowed = s.may(a.Verb, strings.TrimSuffix(a.Resource+"/"+a.Subresource, "/"))
	return review
}

// collection tells /api/v1/namespaces/ns/pods from one of them.
func collection(path string) bool {
	_, after, ok := strings.Cut(path, "/namespaces/")
	return ok && strings.Count(after, "/") == 1 || strings.HasSuffix(path, "/namespaces")
}

func (s *apiServer) listLocked(path, selector string) map[string]any {
	items := []any{}
	for _, at := range sorted(s.objects) {
		if strings.HasPrefix(at, path+"/") && selected(s.objects[at], selector) {
			items = append(items, s.objects[at].Object)
		}
	}
	group, after, _ := strings.Cut(path, "/namespaces")
	resource := after[strings.LastIndex(after, "/")+1:]
	return map[string]any{
		"kind": kinds[resource] + "List", "apiVersion": strings.TrimPrefix(strings.TrimPrefix(group, "/apis/"), "/api/"),
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)}, "items": items,
	}
}

// kinds are those of the resources that are listed.
var kinds = map[string]string{
	"": "Namespace", "rollouts": "Rollout", "pods": "Pod", "services": "Service", "secrets": "Secret", "events": "Event", "leases": "Lease", "deployments": "Deployment",
	"replicasets": "ReplicaSet", "statefulsets": "StatefulSet", "endpointslices": "EndpointSlice", "resourcequotas": "ResourceQuota",
	"limitranges": "LimitRange", "persistentvolumeclaims": "PersistentVolumeClaim", "serviceaccounts": "ServiceAccount",
	"horizontalpodautoscalers": "HorizontalPodAutoscaler", "poddisruptionbudgets": "PodDisruptionBudget",
}

func sorted(objects map[string]*unstructured.Unstructured) []string {
	var paths []string
	for path := range objects {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// selected knows "key" and "key=value", with commas between.
func selected(object *unstructured.Unstructured, selector string) bool {
	for _, term := range strings.Split(selector, ",") {
		key, want, equal := strings.Cut(term, "=")
		got, there := object.GetLabels()[key]
		if term != "" && (!there || equal && got != want) {
			return false
		}
	}
	return true
}

func (s *apiServer) patchLocked(path, kind string, body []byte) (int, any) {
	path = strings.TrimSuffix(path, "/scale")
	object := s.objects[path]
	if object == nil {
		return 404, path + " not found"
	}
	before, err := json.Marshal(object)
	if err != nil {
		return 500, err
	}
	var after []byte
	if kind == "application/json-patch+json" {
		patch, err := jsonpatch.DecodePatch(body)
		if err != nil {
			return 400, err
		}
		if after, err = patch.Apply(before); err != nil {
			return 422, err
		}
	} else if after, err = jsonpatch.MergePatch(before, body); err != nil {
		return 400, err
	}
	changed := &unstructured.Unstructured{}
	if err := json.Unmarshal(after, &changed.Object); err != nil {
		return 500, err
	}
	s.putLocked("MODIFIED", path, changed)
	return 200, changed
}

func (s *apiServer) putLocked(kind, path string, object *unstructured.Unstructured) {
	s.version++
	object.SetResourceVersion(strconv.Itoa(s.version))
	if object.GetUID() == "" {
		object.SetUID(types.UID("uid-of-" + object.GetName()))
	}
	s.objects[path] = object
	s.tellLocked(event{kind, object, path, s.version})
}

func (s *apiServer) deleteLocked(path string) {
	object := s.objects[path]
	if object == nil {
		return
	}
	delete(s.objects, path)
	s.version++
	s.tellLocked(event{"DELETED", object, path, s.version})
}

func (s *apiServer) tellLocked(e event) {
	s.history = append(s.history, e)
	for _, w := range s.watches {
		w <- e
	}
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request) {
	since, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	events := make(chan event, 10_000)
	s.mu.Lock()
	for _, e := range s.history {
		if e.version > since {
			events <- e
		}
	}
	s.watches = append(s.watches, events)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watches = slices.DeleteFunc(s.watches, func(c chan event) bool { return c == events })
	}()
	w.Header().Set("Content-Type", "application/json")
	w.(http.Flusher).Flush()
	path := r.URL.Path + "/" + strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	for {
		select {
		case e := <-events:
			if e.path == path {
				json.NewEncoder(w).Encode(e) //nolint:errcheck // the client sees
				w.(http.Flusher).Flush()
			}
		case <-s.closing:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// put stores objects as they stand in YAML or Go, by the path that their kind has.
func (s *apiServer) put(t *testing.T, path string, object any) {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(text, &u.Object); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked("ADDED", path, u)
}

// at is the object of a path, decoded into object; false if there is none.
func (s *apiServer) at(path string, object any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.atLocked(path, object)
}

func (s *apiServer) atLocked(path string, object any) bool {
	u := s.objects[path]
	if u == nil {
		return false
	}
	text, err := json.Marshal(u)
	return err == nil && json.Unmarshal(text, object) == nil
}

// changes are the requests so far that change something, and clears them.
func (s *apiServer) changes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	changing := slices.DeleteFunc(s.asked, func(line string) bool { return strings.HasPrefix(line, "GET") })
	s.asked = nil
	return changing
}
