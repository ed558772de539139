package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// The kinds that need no asking for their resource.
var wellKnown = map[string]schema.GroupVersionResource{
	"":                   {Group: "apps", Version: "v1", Resource: "deployments"},
	plan.KindDeployment:  {Group: "apps", Version: "v1", Resource: "deployments"},
	plan.KindStatefulSet: {Group: "apps", Version: "v1", Resource: "statefulsets"},
	plan.KindReplicaSet:  {Group: "apps", Version: "v1", Resource: "replicasets"},
}

// revision is the annotation by which a Deployment and the ReplicaSet of its present template know each other.
const revision = "deployment.kubernetes.io/revision"

// resourceOf finds the resource of a kind as kubectl takes it: a short, singular or plural name, with or without its group.
func (c *Cluster) resourceOf(kind string) (schema.GroupVersionResource, error) {
	if known, ok := wellKnown[kind]; ok {
		return known, nil
	}
	group := schema.ParseGroupResource(kind)
	found, err := c.mapper.ResourceFor(group.WithVersion(""))
	if err != nil {
		return found, &trouble{
			what: fmt.Sprintf("the cluster at %s knows no kind %q", c.Server(), kind),
			hint: "kubectl api-resources lists the kinds that there are",
			err:  err,
		}
	}
	return found, nil
}

// workload reads the target, whatever its kind is, as long as it has a pod template and replicas to scale.
func (c *Cluster) workload(ctx context.Context, target plan.Target) (*plan.Workload, error) {
	resource, err := c.resourceOf(target.Kind)
	if err != nil {
		return nil, err
	}
	object, err := c.dynamic.Resource(resource).Namespace(c.namespace).Get(ctx, target.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, c.noSuchWorkload(ctx, resource, target)
	}
	if err != nil {
		return nil, c.explain("reading "+target.String(), err)
	}
	if err := refuseOwned(object, target); err != nil {
		return nil, err
	}
	w := &plan.Workload{
		APIVersion: object.GetAPIVersion(), Kind: object.GetKind(), Resource: resource.Resource,
		Name: object.GetName(), UID: string(object.GetUID()), Replicas: 1,
	}
	if owner := metav1.GetControllerOf(object); owner != nil {
		w.Controller = owner.Kind + " " + owner.Name
	}
	if err := c.readSpec(ctx, w, object); err != nil {
		return nil, err
	}
	if w.Kind == "Deployment" {
		w.ReplicaSet, err = c.currentReplicaSet(ctx, w, object.GetAnnotations()[revision])
	}
	return w, err
}

// spec is what every kind of workload that can be scaled has, and a StatefulSet or a Rollout beside.
type spec struct {
	Replicas             *int32                         `json:"replicas"`
	Paused               bool                           `json:"paused"`
	Selector             *metav1.LabelSelector          `json:"selector"`
	Template             *corev1.PodTemplateSpec        `json:"template"`
	VolumeClaimTemplates []corev1.PersistentVolumeClaim `json:"volumeClaimTemplates"`
	ServiceName          string                         `json:"serviceName"`
	Strategy             json.RawMessage                `json:"strategy"` // of the kind's own shape
	Ordinals             struct {
		Start int32 `json:"start"`
	} `json:"ordinals"`
	PersistentVolumeClaimRetentionPolicy struct {
		WhenScaled string `json:"whenScaled"`
	} `json:"persistentVolumeClaimRetentionPolicy"`
	WorkloadRef *struct { // Argo Rollouts: the template is another workload's
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Name       string `json:"name"`
	} `json:"workloadRef"`
}

func (c *Cluster) readSpec(ctx context.Context, w *plan.Workload, object *unstructured.Unstructured) error {
	who := fmt.Sprintf("%s %q", w.Kind, w.Name)
	var whole struct {
		Spec spec `json:"spec"`
	}
	text, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("reading %s: %w", who, err)
	}
	if err := json.Unmarshal(text, &whole); err != nil {
		return fmt.Errorf("reading %s: %w", who, err)
	}
	s := whole.Spec
	if s.Template == nil && s.WorkloadRef != nil {
		if s.Template, err = c.referredTemplate(ctx, s.WorkloadRef.APIVersion, s.WorkloadRef.Kind, s.WorkloadRef.Name); err != nil {
			return err
		}
	}
	if s.Template == nil || len(s.Template.Spec.Containers) == 0 {
		return &trouble{what: fmt.Sprintf("%s has no pod template to make a proxy from", who), hint: "swap what runs pods and has replicas: a Deployment, a StatefulSet, a ReplicaSet, a Rollout"}
	}
	if s.PersistentVolumeClaimRetentionPolicy.WhenScaled == "Delete" {
		return &trouble{
			what: fmt.Sprintf("%s deletes its volumes when it is scaled down, and a swap scales it down", who),
			hint: "set spec.persistentVolumeClaimRetentionPolicy.whenScaled to Retain first",
		}
	}
	if s.Replicas != nil {
		w.Replicas = *s.Replicas
	}
	if w.Kind == "Deployment" && len(s.Strategy) > 0 {
		if err := json.Unmarshal(s.Strategy, &w.Update); err != nil {
			return fmt.Errorf("reading the strategy of %s: %w", who, err)
		}
	}
	if s.Selector == nil || len(s.Selector.MatchLabels)+len(s.Selector.MatchExpressions) == 0 { // of another shape, or another workload's
		s.Selector = &metav1.LabelSelector{MatchLabels: s.Template.Labels}
	}
	w.Paused, w.Selector, w.Template = s.Paused, s.Selector, *s.Template
	w.VolumeClaimTemplates, w.ServiceName, w.Ordinal = s.VolumeClaimTemplates, s.ServiceName, s.Ordinals.Start
	return nil
}

func (c *Cluster) referredTemplate(ctx context.Context, apiVersion, kind, name string) (*corev1.PodTemplateSpec, error) {
	group, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, fmt.Errorf("reading the workload reference to %s %q: %w", kind, name, err)
	}
	mapping, err := c.mapper.RESTMapping(group.WithKind(kind).GroupKind(), group.Version)
	if err != nil {
		return nil, c.explain(fmt.Sprintf("finding kind %s of the workload reference", kind), err)
	}
	object, err := c.dynamic.Resource(mapping.Resource).Namespace(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, c.explain(fmt.Sprintf("reading %s %q, which has the pod template", kind, name), err)
	}
	fields, found, err := unstructured.NestedMap(object.Object, "spec", "template")
	if err != nil || !found {
		return nil, err
	}
	template := new(corev1.PodTemplateSpec)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields, template); err != nil {
		return nil, fmt.Errorf("reading the pod template of %s %q: %w", kind, name, err)
	}
	return template, nil
}

// refuseOwned refuses a ReplicaSet of a Deployment's: the Deployment would scale it back at once.
func refuseOwned(object *unstructured.Unstructured, target plan.Target) error {
	owner := metav1.GetControllerOf(object)
	if owner == nil || object.GetKind() != "ReplicaSet" {
		return nil
	}
	return &trouble{
		what: fmt.Sprintf("%s belongs to %s %q, which would undo the swap", target, owner.Kind, owner.Name),
		hint: fmt.Sprintf("swap %s %q instead", owner.Kind, owner.Name),
	}
}

// noSuchWorkload says which ones there are.
func (c *Cluster) noSuchWorkload(ctx context.Context, resource schema.GroupVersionResource, target plan.Target) error {
	var names []string
	if list, err := c.dynamic.Resource(resource).Namespace(c.namespace).List(ctx, metav1.ListOptions{}); err == nil {
		for i := range list.Items {
			names = append(names, list.Items[i].GetName())
		}
	}
	slices.Sort(names)
	hint := ""
	if len(names) == 0 {
		hint = "is it the right --namespace, and the right --context?"
	}
	kind := target.Kind
	if kind == "" {
		kind = plan.KindDeployment
	}
	return &trouble{what: fmt.Sprintf("there is no %s %q in namespace %q%s", kind, target.Name, c.namespace, thereAre(names)), hint: hint}
}

// currentReplicaSet is the Deployment's that has its present template; nil when the controller has not made it yet.
func (c *Cluster) currentReplicaSet(ctx context.Context, w *plan.Workload, rev string) (*plan.ReplicaSet, error) {
	list, err := c.core.AppsV1().ReplicaSets(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(w.Selector)})
	if err != nil {
		return nil, c.explain(fmt.Sprintf("listing the replica sets of deployment %q", w.Name), err)
	}
	for i := range list.Items {
		rs := &list.Items[i]
		if owner := metav1.GetControllerOf(rs); owner == nil || owner.UID != types.UID(w.UID) || rs.Annotations[revision] != rev {
			continue
		}
		return &plan.ReplicaSet{Name: rs.Name, UID: string(rs.UID), Hash: rs.Labels[plan.TemplateHash]}, nil
	}
	return nil, nil
}

// podsOf lists the workload's pods that are its own: those of its selector that have a controller and are no session's.
func (c *Cluster) podsOf(ctx context.Context, w *plan.Workload) ([]corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(w.Selector)
	if err != nil {
		return nil, fmt.Errorf("reading the selector of %s %q: %w", w.Kind, w.Name, err)
	}
	if selector.Empty() { // a Rollout with a workloadRef may leave it out
		selector = labels.SelectorFromSet(w.Template.Labels)
	}
	list, err := c.core.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, c.explain(fmt.Sprintf("listing the pods of %s %q", w.Kind, w.Name), err)
	}
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool {
		return pod.Labels[plan.LabelSession] != "" || metav1.GetControllerOf(&pod) == nil
	}), nil
}
