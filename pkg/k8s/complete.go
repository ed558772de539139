package k8s

import (
	"context"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// Targets lists what begins with prefix and can be swapped, as the command line names it: NAME for a deployment, statefulset/NAME,
// replicaset/NAME; and, once the workload is named, NAME:CONTAINER for each of its containers.
func (c *Cluster) Targets(ctx context.Context, prefix string) ([]string, error) {
	if workload, _, containers := strings.Cut(prefix, ":"); containers {
		target, err := plan.ParseTarget(workload)
		if err != nil {
			return nil, err
		}
		w, err := c.workload(ctx, target)
		if err != nil {
			return nil, err
		}
		var found []string
		for i := range w.Template.Spec.Containers {
			found = append(found, workload+":"+w.Template.Spec.Containers[i].Name)
		}
		return beginning(found, prefix), nil
	}
	kind, _, named := strings.Cut(prefix, "/")
	if !named {
		names, err := c.names(ctx, plan.KindDeployment)
		found := append(names, plan.KindStatefulSet+"/", plan.KindReplicaSet+"/")
		return beginning(found, prefix), err
	}
	target, err := plan.ParseTarget(kind + "/x")
	if err != nil {
		return nil, err
	}
	names, err := c.names(ctx, target.Kind)
	for i := range names {
		names[i] = kind + "/" + names[i]
	}
	return beginning(names, prefix), err
}

func (c *Cluster) names(ctx context.Context, kind string) ([]string, error) {
	resource, err := c.resourceOf(kind)
	if err != nil {
		return nil, err
	}
	list, err := c.dynamic.Resource(resource).Namespace(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, c.explain("listing "+resource.Resource, err)
	}
	var names []string
	for i := range list.Items {
		owner := metav1.GetControllerOf(&list.Items[i])
		if owner == nil || owner.Kind != "Deployment" {
			names = append(names, list.Items[i].GetName())
		}
	}
	slices.Sort(names)
	return names, nil
}

func beginning(names []string, prefix string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, prefix) })
}
