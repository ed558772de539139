package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// environPatience is how long asking an original for its environment may take: it is on the way to the user's process.
const environPatience = 15 * time.Second

// readers are commands that print a container's environment with NULs between, whichever of them its image has.
var readers = [][]string{{"cat", "/proc/self/environ"}, {"env", "-0"}}

// ImageEnviron asks a running original for its container's environment: what the image sets is nowhere in the pod's specification. It
// runs cat or env in it. Where the image has neither, it puts an ephemeral container with the agent's image beside it, under the same
// security context, in which the agent waits and is then asked; that needs a right that the edit role has not. Nothing of it gets into a
// log. Call it before the originals go. An error is worth a warning: the rest of the environment is known without.
func (c *Cluster) ImageEnviron(ctx context.Context, p *plan.Plan) ([]string, error) {
	const doing = "asking an original for its image's environment"
	ctx, cancel := context.WithTimeout(ctx, environPatience)
	defer cancel()
	original, err := c.runningOriginal(ctx, p)
	if err != nil {
		return nil, c.explain(doing, err)
	}
	for _, reader := range readers {
		var answer []byte
		if answer, err = c.Exec(ctx, original.Name, p.Container, reader, nil); err == nil {
			return splitEnviron(answer), nil
		}
		if apierrors.IsForbidden(err) || ctx.Err() != nil {
			return nil, c.explain(doing, err)
		}
	}
	environ, err := c.environBeside(ctx, original, p)
	if apierrors.IsForbidden(err) {
		return nil, &trouble{
			what: doing + ": the image has neither cat nor env, and you may not add ephemeral containers",
			hint: "with the right to patch pods/ephemeralcontainers (docs/rights.yaml) it works; or give the variables that the image sets by hand",
			err:  err,
		}
	}
	return environ, c.explain(doing, err)
}

// splitEnviron takes variables apart that end with a NUL each.
func splitEnviron(text []byte) []string {
	var environ []string
	for variable := range strings.SplitSeq(string(text), "\x00") {
		if strings.Contains(variable, "=") {
			environ = append(environ, variable)
		}
	}
	return environ
}

// environBeside asks an agent in an ephemeral container that shares the original's process namespace.
func (c *Cluster) environBeside(ctx context.Context, original *corev1.Pod, p *plan.Plan) ([]string, error) {
	if original.Spec.HostPID || original.Spec.ShareProcessNamespace != nil && *original.Spec.ShareProcessNamespace {
		return nil, fmt.Errorf("the containers of pod %q share one process namespace, in which the first process is not theirs", original.Name)
	}
	name := "telepresence-" + string(p.Session)
	if err := c.addEphemeral(ctx, original, p, name); err != nil {
		return nil, err
	}
	err := c.followPod(ctx, original.Name, func(pod *corev1.Pod) (bool, error) {
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
		return nil, err
	}
	answer, err := c.Exec(ctx, original.Name, name, []string{"/telepresence-agent", "environ"}, nil)
	if err != nil {
		return nil, err
	}
	var environ []string
	if err := json.Unmarshal(answer, &environ); err != nil {
		return nil, fmt.Errorf("reading the agent's answer: %w", err)
	}
	return environ, nil
}

// runningOriginal is a pod of the workload in which the container runs, so that it can be asked.
func (c *Cluster) runningOriginal(ctx context.Context, p *plan.Plan) (*corev1.Pod, error) {
	if p.Workload == nil {
		return nil, errors.New("there is no original")
	}
	pods, err := c.podsOf(ctx, p.Workload)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		if pods[i].DeletionTimestamp == nil && runs(&pods[i], p.Container) {
			return &pods[i], nil
		}
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

// Exec runs a command in a container of a pod of the namespace, with stdin if that is not nil, and returns what it writes to its stdout.
func (c *Cluster) Exec(ctx context.Context, pod, container string, command []string, stdin io.Reader) ([]byte, error) {
	doing := fmt.Sprintf("running %s in %s", command[0], pod)
	options := &corev1.PodExecOptions{Container: container, Command: command, Stdin: stdin != nil, Stdout: true, Stderr: true}
	u := c.core.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.namespace).Name(pod).SubResource("exec").
		VersionedParams(options, scheme.ParameterCodec).URL()
	overWebSocket, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, u.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	overSPDY, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, u)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	executor, err := remotecommand.NewFallbackExecutor(overWebSocket, overSPDY, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	var stdout, stderr bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: &stdout, Stderr: &stderr})
	if err != nil && stderr.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), c.explain(doing, err)
}
