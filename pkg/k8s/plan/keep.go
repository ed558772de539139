package plan

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/k8s/undo"
)

// The content types of patches (RFC 7386 and RFC 6902).
const (
	mergePatch = "application/merge-patch+json"
	jsonPatch  = "application/json-patch+json"
)

// leaseSeconds is how long a session counts as alive after its last sign of
// life.
const leaseSeconds = 60

// keep makes what the cluster keeps of the session: the Secret with the record
// and the keys, and the Lease that its client renews.
func (p *Plan) keep(r Request) error {
	p.Record = undo.Record{
		Version: undo.Version, Session: string(r.Session), Owner: r.Owner, Workload: r.Target.String(), Created: r.Now.UTC(),
		Restore: p.restore(),
		Remove:  p.remove(),
	}
	record, err := p.Record.Marshal()
	if err != nil {
		return err
	}
	meta := metav1.ObjectMeta{
		Name: r.Target.Resource(), Namespace: p.Namespace,
		Labels:      map[string]string{LabelSession: string(r.Session), LabelRole: "record"},
		Annotations: p.annotations(r),
	}
	p.Secret = &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: meta, Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{KeyUndo: record, KeyHostKey: r.Keys.HostKey, KeyClientPublic: r.Keys.ClientPublic, KeyToken: r.Keys.Token},
	}
	now := metav1.NewMicroTime(r.Now.UTC())
	p.Lease = &coordinationv1.Lease{
		TypeMeta: metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}, ObjectMeta: *meta.DeepCopy(),
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &r.Owner, LeaseDurationSeconds: new(int32(leaseSeconds)), AcquireTime: &now, RenewTime: &now},
	}
	p.Lease.Labels[LabelRole] = "lease"
	return nil
}

// Left is the number of replicas that the workload is scaled to while the proxy
// is there: the proxy itself counts as one where it is adopted.
func (p *Plan) Left() int32 {
	if p.Strategy == Adopt {
		return 1
	}
	return 0
}

// restore are the requests that bring the originals back. The proxy pod has a
// name of the session's own; the workload may be another session's by now. Where
// the proxy and an original can't be there at once, the proxy goes first.
func (p *Plan) restore() []undo.Request {
	list := []undo.Request{}
	if p.OriginalsFirst {
		first := p.deletion("pod", "v1", "pods", p.Pod.Name)
		first.ContentType, first.Body = "application/json", encode(map[string]any{"gracePeriodSeconds": 5}) // originals wait for it
		list = append(list, first)
	}
	if p.Strategy == Adopt {
		list = append(list, undo.Request{
			What:   fmt.Sprintf("take pod %s out of its ReplicaSet", p.Pod.Name),
			Method: http.MethodPatch, Path: p.path("v1", "pods", p.Pod.Name), ContentType: mergePatch,
			Body:   encode(map[string]any{"metadata": map[string]any{"labels": map[string]any{TemplateHash: nil}, "ownerReferences": nil}}),
			Ignore: []int{http.StatusNotFound},
		})
	}
	if w := p.Workload; w != nil && p.Strategy != Leave && w.Replicas != p.Left() {
		list = append(list, p.guard(), p.scaleBack())
	}
	return list
}

// guard is the request before all that another session may have made its own: it
// changes nothing, and ends the undoing where the Secret is another session's.
// Where it is gone, or may not be changed, nobody knows better than the record.
func (p *Plan) guard() undo.Request {
	label := "/metadata/labels/" + strings.ReplaceAll(LabelSession, "/", "~1") // RFC 6901
	return undo.Request{
		What:   fmt.Sprintf("see that session %s has %s", p.Session, p.Target),
		Method: http.MethodPatch, Path: p.path("v1", "secrets", p.Target.Resource()), ContentType: jsonPatch,
		Body:   encode([]map[string]any{{"op": "test", "path": label, "value": string(p.Session)}}),
		Ignore: []int{http.StatusNotFound, http.StatusForbidden},
		Stop:   []int{http.StatusUnprocessableEntity},
	}
}

// scaleBack brings the number of replicas back, only if it still is as the
// session left it: whoever has scaled the workload meanwhile meant it. The test
// needs the workload itself, as a Scale has no replicas field for 0; a kind of
// which only the scale sub-resource is known is scaled back without it.
func (p *Plan) scaleBack() undo.Request {
	w := p.Workload
	q := undo.Request{
		What:   fmt.Sprintf("scale %s to %d", p.Target, w.Replicas),
		Method: http.MethodPatch, Path: p.path(w.APIVersion, w.Resource, w.Name), ContentType: jsonPatch,
		Body: encode([]map[string]any{
			{"op": "test", "path": "/spec/replicas", "value": p.Left()},
			{"op": "replace", "path": "/spec/replicas", "value": w.Replicas},
		}),
		Ignore: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}
	if w.APIVersion != "apps/v1" {
		q.Path += "/scale"
		q.ContentType, q.Ignore = mergePatch, []int{http.StatusNotFound}
		q.Body = encode(map[string]any{"spec": map[string]any{"replicas": w.Replicas}})
	}
	return q
}

// remove are the requests that take away what the session has made, the record
// last.
func (p *Plan) remove() []undo.Request {
	var list []undo.Request
	pod := p.deletion("pod", "v1", "pods", p.Pod.Name)
	switch p.Operation {
	case Swap:
		list = append(list, pod, p.guard())
	case Standing:
		list = append(list, p.guard())
	case New:
		list = append(list, p.guard())
		if p.Service != nil {
			list = append(list, p.deletion("service", "v1", "services", p.Service.Name))
		}
		list = append(list, pod)
	}
	return append(list,
		p.deletion("lease", "coordination.k8s.io/v1", "leases", p.Target.Resource()),
		p.deletion("secret", "v1", "secrets", p.Target.Resource()))
}

// deletion is the request that deletes an object, or finds it gone.
func (p *Plan) deletion(kind, apiVersion, resource, name string) undo.Request {
	return undo.Request{
		What: fmt.Sprintf("delete %s %s", kind, name), Method: http.MethodDelete,
		Path: p.path(apiVersion, resource, name), Ignore: []int{http.StatusNotFound},
	}
}

// path is an object's at the API server.
func (p *Plan) path(apiVersion, resource, name string) string {
	root := "/apis/"
	if !strings.Contains(apiVersion, "/") {
		root = "/api/"
	}
	return root + apiVersion + "/namespaces/" + p.Namespace + "/" + resource + "/" + name
}

// encode is a value of ours as JSON: maps, lists, strings and numbers, which all
// have one.
func encode(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}
