package k8s

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// environPatience is how long asking an original for its environment may take: it is on the way to the user's process.
const environPatience = 5 * time.Second

// ErrCannotAsk says that an original runs, and cannot be asked for its environment.
var ErrCannotAsk = errors.New("the original cannot be asked for its environment")

// readers are commands that print a container's environment with NULs between, whichever of them its image has.
var readers = [][]string{{"cat", "/proc/self/environ"}, {"env", "-0"}}

// ImageEnviron asks a running original for its container's environment, by cat or env: what the image sets is nowhere in the pod's
// specification. It changes nothing. ErrCannotAsk means that the image has neither, or that the user may not exec: plan.Request has ReadImage
// for that. Any other error is worth a warning: the rest of the environment is known without.
func (c *Cluster) ImageEnviron(ctx context.Context, p *plan.Plan) ([]string, error) {
	original, err := c.runningOriginal(ctx, p)
	if err != nil {
		return nil, c.explain("asking an original for its image's environment", err)
	}
	bounded, cancel := context.WithTimeout(ctx, environPatience)
	defer cancel()
	for _, reader := range readers {
		var answer []byte
		if answer, err = c.Exec(bounded, original.Name, p.Container, reader, nil); err == nil {
			return splitEnviron(answer), nil
		}
		if apierrors.IsForbidden(err) {
			break
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%w: %w", ErrCannotAsk, err)
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
