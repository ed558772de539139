package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/k8s/undo"
)

// How long the originals may take to come back before the proxy goes all the same.
const (
	firstBack = time.Minute      // until one of them serves
	restBack  = 10 * time.Second // after that, until all do
)

// ErrNotReady says that the originals are back, as far as this program can bring them, and that none of them is ready yet.
var ErrNotReady = errors.New("no original is ready")

// Restore puts back what a session has changed, wherever it got to: the originals serve again, then all that the session has made is
// gone. Anyone may call it, again and again. It goes on while the server is away, until ctx ends.
func (c *Cluster) Restore(ctx context.Context, record undo.Record, tell Tell) error {
	switch err := c.BringBack(ctx, record, tell); {
	case errors.Is(err, ErrNotReady):
		tell(err.Error())
	case err != nil:
		return err
	}
	if err := c.endProxy(ctx, record); err != nil {
		return err
	}
	if err := c.Remove(ctx, record); err != nil {
		return err
	}
	return c.AwaitGone(ctx, record, tell)
}

// BringBack is the first half of Restore: it returns when the originals serve again, or after a minute in which they do not, and the proxy has
// left the services: from then on nobody misses it. It has to serve meanwhile, unless both cannot be there at once: then it goes first.
func (c *Cluster) BringBack(ctx context.Context, record undo.Record, tell Tell) error {
	c = c.In(namespaceOf(record, c.namespace))
	for _, request := range record.Restore {
		switch err := undo.Apply(ctx, c.do, []undo.Request{request}); {
		case errors.Is(err, undo.ErrSuperseded):
			return nil // somebody has put things back, and somebody has swapped since
		case err != nil:
			return c.notRestored(record, err)
		}
		if pod, ok := deletedPod(request); ok {
			if err := c.awaitPodGone(ctx, pod); err != nil {
				return c.notRestored(record, err)
			}
		}
	}
	if len(record.Restore) == 0 {
		return nil
	}
	backErr := c.awaitBack(ctx, record, tell)
	if backErr != nil && !errors.Is(backErr, ErrNotReady) {
		return backErr
	}
	return errors.Join(backErr, c.detach(ctx, record))
}

// Remove is the second half of Restore: it deletes the proxy and all else of the session's, the record last. The proxy pod is on its way out when
// Remove returns, and serves until its agent ends.
func (c *Cluster) Remove(ctx context.Context, record undo.Record) error {
	c = c.In(namespaceOf(record, c.namespace))
	if err := undo.Apply(ctx, c.do, record.Remove); err != nil && !errors.Is(err, undo.ErrSuperseded) {
		return c.notRestored(record, err)
	}
	return nil
}

func (c *Cluster) notRestored(record undo.Record, err error) error {
	what := fmt.Sprintf("%s is not restored: ", record.Workload)
	var status *undo.StatusError
	if errors.As(err, &status) && status.Forbidden() {
		return &trouble{what: what + err.Error(), hint: rightsHint, err: err}
	}
	explained := &trouble{what: what + err.Error(), hint: "telepresence leave " + record.Workload + " does it later, from any machine", err: err}
	return explained
}

// do is an undo.Doer. It repeats what the server is not there for, or too busy, until ctx ends.
func (c *Cluster) do(ctx context.Context, method, path, contentType string, body []byte) (int, []byte, error) {
	for {
		request := c.core.CoreV1().RESTClient().Verb(method).AbsPath(path).MaxRetries(0)
		if contentType != "" {
			request.SetHeader("Content-Type", contentType)
		} else if len(body) > 0 {
			request.SetHeader("Content-Type", "application/json")
		}
		if len(body) > 0 {
			request.Body(body)
		}
		var status int
		answer, err := request.Do(ctx).StatusCode(&status).Raw()
		switch {
		case status != 0 && !passingStatus(status):
			return status, answer, nil
		case status == 0 && (ctx.Err() != nil || !passing(err)):
			return 0, nil, c.explain("", err)
		}
		if wait := pause(ctx, time.Second); wait != nil {
			if status != 0 {
				return status, answer, nil
			}
			return 0, nil, c.explain("", err)
		}
	}
}

func passingStatus(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// namespaceOf is the namespace that a record is about; its requests have it in their paths.
func namespaceOf(record undo.Record, otherwise string) string {
	for _, request := range record.Remove {
		if _, after, ok := strings.Cut(request.Path, "/namespaces/"); ok {
			namespace, _, _ := strings.Cut(after, "/")
			return namespace
		}
	}
	return otherwise
}

// deletedPod is the name of the pod that a request deletes.
func deletedPod(request undo.Request) (string, bool) {
	_, name, ok := strings.Cut(request.Path, "/pods/")
	return name, ok && request.Method == http.MethodDelete && !strings.Contains(name, "/")
}

// awaitBack waits until as many originals serve as did before: one of them within a minute, the rest within a few seconds more. A workload
// that takes longer than that is told about, and waited for no more.
func (c *Cluster) awaitBack(ctx context.Context, record undo.Record, tell Tell) error {
	target, err := plan.ParseTarget(record.Workload)
	if err != nil || record.Serving == 0 {
		return nil // nothing that could be waited for
	}
	deadline := time.Now().Add(firstBack)
	one, why, told := false, "", teller{tell: tell}
	err = poll(ctx, func() (bool, error) {
		w, err := c.workload(ctx, target)
		if err != nil || w.Replicas == 0 {
			return !passing(err), nil // gone meanwhile, or not to be seen: nobody to wait for
		}
		back, line, err := c.back(ctx, w)
		if err != nil {
			return !passing(err), nil
		}
		if back > 0 && !one {
			one, deadline = true, time.Now().Add(restBack)
		}
		why = line
		told.see(line)
		return back >= min(record.Serving, int(w.Replicas)) || time.Now().After(deadline), nil
	})
	if err == nil && !one && time.Now().After(deadline) {
		return fmt.Errorf("%s: %w after %s; %s", record.Workload, ErrNotReady, firstBack, why)
	}
	return err
}

// back counts the originals that serve, and says what the first of the others waits for.
func (c *Cluster) back(ctx context.Context, w *plan.Workload) (n int, why string, err error) {
	pods, err := c.podsOf(ctx, w)
	if err != nil {
		return 0, "", err
	}
	why = "waiting for the originals to be made"
	serving := c.serving(ctx, w.Template.Labels)
	for i := range pods {
		pod := &pods[i]
		switch {
		case pod.DeletionTimestamp != nil || isOver(pod):
		case isReady(pod) && serving.everywhere(pod.Name):
			n++
			why = ""
		default:
			line, err := whyNotReady(pod, "", c.podEvents(ctx, pod))
			if err != nil {
				line = err.Error()
			}
			why = strings.TrimSuffix("waiting for the originals: "+strings.TrimPrefix(line, "waiting for "), ": ")
		}
	}
	return n, why, nil
}

// detach takes the session's proxy out of every service, by taking off the labels that they select it by: so no new connection comes
// when it is deleted.
func (c *Cluster) detach(ctx context.Context, record undo.Record) error {
	pods, err := c.proxies(ctx, record)
	if err != nil {
		return err
	}
	for i := range pods {
		pod := &pods[i]
		serving := c.serving(ctx, pod.Labels)
		if pod.DeletionTimestamp != nil || !serving.anywhere(pod.Name) {
			continue
		}
		gone := map[string]any{}
		for label := range pod.Labels {
			if label != plan.LabelSession && label != plan.LabelRole {
				gone[label] = nil
			}
		}
		if len(gone) == 0 {
			continue // a service of the session's own, which goes first
		}
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": gone}})
		if err != nil {
			return fmt.Errorf("taking pod %q out of the services: %w", pod.Name, err)
		}
		_, err = c.core.CoreV1().Pods(c.namespace).Patch(ctx, pod.Name, types.MergePatchType, body, metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return c.explain(fmt.Sprintf("taking pod %q out of the services", pod.Name), err)
		}
		if err := c.awaitUnserved(ctx, pod.Labels, []string{pod.Name}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) proxies(ctx context.Context, record undo.Record) ([]corev1.Pod, error) {
	list, err := c.core.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: plan.LabelSession + "=" + record.Session})
	if err != nil {
		return nil, c.explain("listing the session's pods", err)
	}
	return list.Items, nil
}

// awaitPodGone waits until a pod is no more.
func (c *Cluster) awaitPodGone(ctx context.Context, name string) error {
	return poll(ctx, func() (bool, error) {
		_, err := c.core.CoreV1().Pods(c.namespace).Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

// endProxy deletes the session's pods with little time to end: an agent whose client is gone would wait for it, and nobody counts on it any more.
func (c *Cluster) endProxy(ctx context.Context, record undo.Record) error {
	c = c.In(namespaceOf(record, c.namespace))
	var pods []corev1.Pod
	err := poll(ctx, func() (_ bool, err error) {
		pods, err = c.proxies(ctx, record)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	grace := int64(2)
	for i := range pods {
		err := c.core.CoreV1().Pods(c.namespace).Delete(ctx, pods[i].Name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
		if err != nil && !apierrors.IsNotFound(err) && !passing(err) { // Remove deletes it, too
			return c.explain("ending the proxy pod", err)
		}
	}
	return nil
}

// AwaitGone waits until the session's pods are no more.
func (c *Cluster) AwaitGone(ctx context.Context, record undo.Record, tell Tell) error {
	c = c.In(namespaceOf(record, c.namespace))
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := poll(bounded, func() (bool, error) {
		pods, err := c.proxies(bounded, record)
		return err == nil && len(pods) == 0, err
	})
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		tell("the proxy pod takes its time to end; the cluster removes it when it has")
		return nil
	}
	return err
}
