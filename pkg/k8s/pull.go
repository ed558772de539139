package k8s

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// StartCached is StartProxy for a plan whose agent's image has the name by which
// nodes pull it from their own cache. Where the node can't, as when all nodes that
// held the image are gone, warn hears it, and the pod goes on with the name that
// the image has in its registry: a pod's images are what may be changed of it.
func (c *Cluster) StartCached(ctx context.Context, p *plan.Plan, registryName string, tell, warn Tell) error {
	if err := c.makeProxy(ctx, p); err != nil {
		return err
	}
	cached := imageOf(p)
	why := ""
	err := c.awaitPod(ctx, p.Pod.Name, p.Container, func(pod *corev1.Pod) bool {
		why = notPulled(pod, cached)
		return why != "" || runs(pod, p.Container)
	}, tell)
	if err != nil || why == "" {
		return err
	}
	warn("the proxy image comes from its registry: the node's image cache doesn't give it: " + why)
	if err := c.rename(ctx, p, cached, registryName); err != nil {
		return err
	}
	return c.awaitAgent(ctx, p, func(line string) {
		if !strings.Contains(line, cached) { // the kubelet goes on about it for a moment
			tell(line)
		}
	})
}

// imageOf is the image of the plan's agent.
func imageOf(p *plan.Plan) string {
	i := slices.IndexFunc(p.Pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == p.Container })
	return p.Pod.Spec.Containers[i].Image
}

// lastCause is what comes last in a chain of causes that name the image again and
// again.
func lastCause(chain, image string) string {
	i := strings.LastIndex(chain, image)
	if i < 0 {
		return chain
	}
	return cmp.Or(strings.TrimLeft(chain[i+len(image):], `": `), chain)
}

// notPulled says why a container's image was not pulled, if that was tried.
func notPulled(pod *corev1.Pod, image string) string {
	statuses := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	for _, spec := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		status := containerStatus(statuses, spec.Name)
		if spec.Image != image || status == nil || status.State.Waiting == nil {
			continue
		}
		switch w := status.State.Waiting; w.Reason {
		case "ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ErrImageInspect":
			return lowerFirst(lastCause(firstLine(w.Message), image))
		}
	}
	return ""
}

// rename gives the containers of one image another name of it.
func (c *Cluster) rename(ctx context.Context, p *plan.Plan, from, to string) error {
	type named struct {
		Name  string `json:"name"`
		Image string `json:"image"`
	}
	renamed := func(containers []corev1.Container) []named {
		list := []named{}
		for _, c := range containers {
			if c.Image == from {
				list = append(list, named{c.Name, to})
			}
		}
		return list
	}
	body, err := json.Marshal(map[string]any{"spec": map[string]any{
		"initContainers": renamed(p.Pod.Spec.InitContainers), "containers": renamed(p.Pod.Spec.Containers),
	}})
	if err == nil {
		_, err = c.core.CoreV1().Pods(c.namespace).Patch(ctx, p.Pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{})
	}
	return c.explain(fmt.Sprintf("giving pod %q image %s", p.Pod.Name, to), err)
}
