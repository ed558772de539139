package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// environPatience is how long asking an original for its environment may take: it is on the way to the user's process.
const environPatience = 15 * time.Second

// ImageEnviron asks a running original for the environment of its first process: what the image sets is nowhere in the pod's
// specification. It puts an ephemeral container with the agent's image beside it, under the same security context, in which the agent
// waits and is then asked; so nothing of it gets into a log. Call it before the originals go, which take it along. An error is worth a
// warning: the rest of the environment is known without.
func (c *Cluster) ImageEnviron(ctx context.Context, p *plan.Plan) ([]string, error) {
	const doing = "asking an original for its image's environment"
	ctx, cancel := context.WithTimeout(ctx, environPatience)
	defer cancel()
	original, err := c.runningOriginal(ctx, p)
	if err != nil {
		return nil, c.explain(doing, err)
	}
	name := "telepresence-" + string(p.Session)
	if err := c.addEphemeral(ctx, original, p, name); err != nil {
		return nil, c.explain(doing, err)
	}
	err = c.followPod(ctx, original.Name, func(pod *corev1.Pod) (bool, error) {
		if pod == nil || pod.DeletionTimestamp != nil {
			return false, fmt.Errorf("pod %q went away", original.Name)
		}
		status := containerStatus(pod.Status.EphemeralContainerStatuses, name)
		switch {
		case status == nil:
			return false, nil
		case status.State.Terminated != nil:
			return false, fmt.Errorf("the ephemeral container ended: %s", strings.TrimSpace(status.State.Terminated.Reason+" "+status.State.Terminated.Message))
		case status.State.Waiting != nil && strings.Contains(status.State.Waiting.Reason, "Err"):
			return false, fmt.Errorf("the ephemeral container does not start: %s", firstLine(status.State.Waiting.Message))
		}
		return status.State.Running != nil, nil
	})
	if err != nil {
		return nil, c.explain(doing, err)
	}
	answer, err := c.exec(ctx, original.Name, name, []string{"/telepresence-agent", "environ"})
	if err != nil {
		return nil, c.explain(doing, err)
	}
	var environ []string
	if err := json.Unmarshal(answer, &environ); err != nil {
		return nil, fmt.Errorf("%s: reading the answer: %w", doing, err)
	}
	return environ, nil
}

// runningOriginal is a pod of the workload in which the container runs, so that it can be asked.
func (c *Cluster) runningOriginal(ctx context.Context, p *plan.Plan) (*corev1.Pod, error) {
	if p.Workload == nil {
		return nil, fmt.Errorf("there is no original")
	}
	pods, err := c.podsOf(ctx, p.Workload)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		pod := &pods[i]
		if pod.DeletionTimestamp != nil || !runs(pod, p.Container) {
			continue
		}
		if pod.Spec.HostPID || pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace {
			return nil, fmt.Errorf("the containers of pod %q share one process namespace, in which the first process is not theirs", pod.Name)
		}
		return pod, nil
	}
	return nil, fmt.Errorf("container %q runs in no pod of %s", p.Container, p.Target)
}

// addEphemeral puts the waiting agent into the process namespace of the original's container.
func (c *Cluster) addEphemeral(ctx context.Context, original *corev1.Pod, p *plan.Plan, name string) error {
	ephemeral := corev1.EphemeralContainer{
		TargetContainerName: p.Container,
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: name, Command: []string{"/telepresence-agent", "pause"},
			TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		},
	}
	for i := range p.Pod.Spec.Containers {
		if agent := &p.Pod.Spec.Containers[i]; agent.Name == p.Container {
			ephemeral.Image, ephemeral.ImagePullPolicy = agent.Image, agent.ImagePullPolicy
		}
	}
	for i := range original.Spec.Containers {
		if container := &original.Spec.Containers[i]; container.Name == p.Container {
			ephemeral.SecurityContext = container.SecurityContext
		}
	}
	body, err := json.Marshal(map[string]any{"spec": map[string]any{"ephemeralContainers": []corev1.EphemeralContainer{ephemeral}}})
	if err != nil {
		return fmt.Errorf("describing the ephemeral container: %w", err)
	}
	_, err = c.core.CoreV1().Pods(c.namespace).Patch(ctx, original.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "ephemeralcontainers")
	return err
}

// exec runs a command in a container and returns what it writes to its stdout.
func (c *Cluster) exec(ctx context.Context, pod, container string, command []string) ([]byte, error) {
	u := c.core.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	overWebSocket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", u.String())
	if err != nil {
		return nil, fmt.Errorf("preparing to run %s: %w", command[0], err)
	}
	overSPDY, err := remotecommand.NewSPDYExecutor(c.config, "POST", u)
	if err != nil {
		return nil, fmt.Errorf("preparing to run %s: %w", command[0], err)
	}
	executor, err := remotecommand.NewFallbackExecutor(overWebSocket, overSPDY, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return nil, fmt.Errorf("preparing to run %s: %w", command[0], err)
	}
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		return nil, fmt.Errorf("running %s %s: %w: %s", command[0], strings.Join(command[1:], " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}
