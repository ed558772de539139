package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// The way in, in this order; whoever calls does the way out (restore.go) if any step fails:
//
//  0. Try         nothing is changed: would the server let the proxy pod in? (trial.go)
//  1. Hold        the Secret: lock, undo record, keys. Then the Lease, which Renew renews.
//  2. TakeDown    only where the originals have to go first
//  3. StartProxy  the proxy pod, until its agent runs
//  4. TakeOver    when the proxy is ready: the originals go

// renewEvery is how often a session says that it is alive; four times in a lease.
const renewEvery = 15 * time.Second

// Hold takes the workload for the session, by creating its Secret, which holds the undo record. It returns *Held if another
// session has it. After Hold the plan's objects belong to the Secret.
func (c *Cluster) Hold(ctx context.Context, p *plan.Plan) error {
	if err := c.countServing(ctx, p); err != nil {
		return err
	}
	secret, err := c.core.CoreV1().Secrets(c.namespace).Create(ctx, p.Secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return c.held(ctx, p)
	}
	if err != nil {
		return c.explain("keeping the undo record in the cluster", err)
	}
	p.Secret.UID = secret.UID
	p.Own(string(secret.UID))

	now := metav1.NewMicroTime(c.clock.Now())
	p.Lease.Spec.AcquireTime, p.Lease.Spec.RenewTime = &now, &now
	p.Lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: secret.Name, UID: secret.UID}}
	leases := c.core.CoordinationV1().Leases(c.namespace)
	_, err = leases.Create(ctx, p.Lease, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) { // of a session whose Secret was deleted by hand
		if err = leases.Delete(ctx, p.Lease.Name, metav1.DeleteOptions{}); err == nil || apierrors.IsNotFound(err) {
			_, err = leases.Create(ctx, p.Lease, metav1.CreateOptions{})
		}
	}
	if err == nil {
		return nil
	}
	err = c.explain("telling the cluster that the session is alive", err)
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if gone := c.core.CoreV1().Secrets(c.namespace).Delete(cleanup, secret.Name, metav1.DeleteOptions{}); gone != nil {
		return errors.Join(err, c.explain("taking the undo record away again", gone))
	}
	return err
}

// countServing notes in the record how many originals are ready: whoever brings them back is to wait for as many, and not for a
// workload that was broken before.
func (c *Cluster) countServing(ctx context.Context, p *plan.Plan) error {
	if p.Workload == nil {
		return nil
	}
	pods, err := c.podsOf(ctx, p.Workload)
	if err != nil {
		return err
	}
	for i := range pods {
		if isReady(&pods[i]) {
			p.Record.Serving++
		}
	}
	record, err := p.Record.Marshal()
	if err != nil {
		return err
	}
	p.Secret.Data[plan.KeyUndo] = record
	return nil
}

// Renew says that the session is alive, until ctx ends; then it returns nil. An error means that the session was ended by somebody
// else. A server that is away is none.
func (c *Cluster) Renew(ctx context.Context, p *plan.Plan) error {
	wait := renewEvery
	for pause(ctx, wait) == nil {
		err := c.renew(ctx, p)
		switch {
		case err == nil:
			wait = renewEvery
		case apierrors.IsNotFound(err), apierrors.IsInvalid(err):
			return &trouble{what: "the session was ended by somebody else", hint: "somebody ran telepresence leave, or swapped while this machine was away"}
		default:
			wait = renewEvery / 5
		}
	}
	return nil
}

// renew renews the lease once, if it is still this session's.
func (c *Cluster) renew(ctx context.Context, p *plan.Plan) error {
	body, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/labels/" + strings.ReplaceAll(plan.LabelSession, "/", "~1"), "value": p.Session},
		{"op": "replace", "path": "/spec/renewTime", "value": metav1.NewMicroTime(c.clock.Now())},
	})
	if err != nil {
		return fmt.Errorf("renewing the lease: %w", err)
	}
	_, err = c.core.CoordinationV1().Leases(c.namespace).Patch(ctx, p.Lease.Name, types.JSONPatchType, body, metav1.PatchOptions{})
	return err
}

// TakeDown scales the originals to none and waits until they are gone, where they and the proxy cannot be there at once; otherwise
// it does nothing.
func (c *Cluster) TakeDown(ctx context.Context, p *plan.Plan, tell Tell) error {
	if !p.OriginalsFirst {
		return nil
	}
	if err := c.scale(ctx, p, nil); err != nil {
		return err
	}
	return c.awaitNone(ctx, p, tell, func() ([]string, error) {
		pods, err := c.podsOf(ctx, p.Workload)
		return namesOf(pods), err
	})
}

// StartProxy makes the proxy pod, and returns when its agent runs and can be reached. tell hears what it waits for meanwhile; a pod that
// can never start is an error with the events that say why.
func (c *Cluster) StartProxy(ctx context.Context, p *plan.Plan, tell Tell) error {
	if p.Operation == plan.Standing {
		return nil
	}
	if err := c.makeProxy(ctx, p); err != nil {
		return err
	}
	return c.awaitAgent(ctx, p, tell)
}

// makeProxy makes the proxy pod, and its service where the plan has one.
func (c *Cluster) makeProxy(ctx context.Context, p *plan.Plan) error {
	if p.Service != nil {
		_, err := c.core.CoreV1().Services(c.namespace).Create(ctx, p.Service, metav1.CreateOptions{})
		if err != nil {
			return c.explain(fmt.Sprintf("making service %q", p.Service.Name), err)
		}
	}
	return c.createPod(ctx, p)
}

// awaitAgent waits until the agent runs.
func (c *Cluster) awaitAgent(ctx context.Context, p *plan.Plan, tell Tell) error {
	return c.awaitPod(ctx, p.Pod.Name, p.Container, func(pod *corev1.Pod) bool { return runs(pod, p.Container) }, tell)
}

// createPod makes the proxy pod. Quotas are counted by a controller that comes after, so where the originals have just made room
// it is tried for a while.
func (c *Cluster) createPod(ctx context.Context, p *plan.Plan) error {
	patience := time.Now().Add(15 * time.Second)
	for {
		_, err := c.core.CoreV1().Pods(c.namespace).Create(ctx, p.Pod, metav1.CreateOptions{})
		if err == nil || !madeRoom(err, p) && !apierrors.IsConflict(err) || time.Now().After(patience) {
			return c.explain("making the proxy pod", err)
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// TakeOver waits until the proxy is ready and in every service that selects it, takes the traffic over, and returns when no original serves.
func (c *Cluster) TakeOver(ctx context.Context, p *plan.Plan, tell Tell) error {
	if p.Operation == plan.Standing {
		return nil
	}
	if err := c.awaitPod(ctx, p.Pod.Name, p.Container, isReady, tell); err != nil {
		return err
	}
	if p.Workload == nil || p.Strategy == plan.Leave {
		return nil
	}
	if err := c.awaitServed(ctx, p.Pod.Labels, p.Pod.Name, 10*time.Second); err != nil {
		return err
	}
	originals, err := c.podsOf(ctx, p.Workload)
	if err != nil {
		return err
	}
	switch {
	case p.Strategy == plan.Adopt:
		if err := c.scale(ctx, p, nil); err != nil {
			return err
		}
		if err := c.adopt(ctx, p); err != nil {
			return err
		}
	case !p.OriginalsFirst:
		if err := c.scale(ctx, p, nil); err != nil {
			return err
		}
	}
	if err := c.awaitStopped(ctx, p, tell); err != nil {
		return err
	}
	return c.awaitUnserved(ctx, p.Pod.Labels, namesOf(originals))
}

// scale scales the workload to what the plan leaves of it, unless somebody has scaled it meanwhile; with dryRun, asks whether it may.
func (c *Cluster) scale(ctx context.Context, p *plan.Plan, dryRun []string) error {
	w := p.Workload
	if w.Replicas == p.Left() {
		return nil
	}
	doing := fmt.Sprintf("scaling %s to %d", p.Target, p.Left())
	group, err := schema.ParseGroupVersion(w.APIVersion)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	objects := c.dynamic.Resource(group.WithResource(w.Resource)).Namespace(c.namespace)
	if w.APIVersion != "apps/v1" {
		body := fmt.Sprintf(`{"spec":{"replicas":%d}}`, p.Left())
		_, err = objects.Patch(ctx, w.Name, types.MergePatchType, []byte(body), metav1.PatchOptions{DryRun: dryRun}, "scale")
		return c.explain(doing, err)
	}
	body := fmt.Sprintf(`[{"op":"test","path":"/spec/replicas","value":%d},{"op":"replace","path":"/spec/replicas","value":%d}]`, w.Replicas, p.Left())
	_, err = objects.Patch(ctx, w.Name, types.JSONPatchType, []byte(body), metav1.PatchOptions{DryRun: dryRun})
	if apierrors.IsInvalid(err) && !denied(err) {
		return &trouble{what: fmt.Sprintf("%s was scaled by somebody else just now", p.Target), hint: "try again"}
	}
	return c.explain(doing, err)
}

// adopt makes the proxy one of the ReplicaSet's pods, the last that it would delete: so it deletes an original.
func (c *Cluster) adopt(ctx context.Context, p *plan.Plan) error {
	rs, controls := p.Workload.ReplicaSet, true
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"labels":      map[string]string{plan.TemplateHash: rs.Hash},
		"annotations": map[string]string{plan.DeletionCost: plan.HighestCost},
		"ownerReferences": []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: rs.Name, UID: types.UID(rs.UID), Controller: &controls},
			{APIVersion: "v1", Kind: "Secret", Name: p.Secret.Name, UID: p.Secret.UID},
		},
	}})
	if err != nil {
		return fmt.Errorf("making the proxy a pod of %s: %w", p.Target, err)
	}
	_, err = c.core.CoreV1().Pods(c.namespace).Patch(ctx, p.Pod.Name, types.MergePatchType, body, metav1.PatchOptions{})
	return c.explain(fmt.Sprintf("making the proxy a pod of %s", p.Target), err)
}

// awaitStopped waits until every original was told to stop, and looks that it is not the proxy that was.
func (c *Cluster) awaitStopped(ctx context.Context, p *plan.Plan, tell Tell) error {
	return c.awaitNone(ctx, p, tell, func() ([]string, error) {
		proxy, err := c.core.CoreV1().Pods(c.namespace).Get(ctx, p.Pod.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && (proxy.DeletionTimestamp != nil || isOver(proxy)) {
			return nil, &trouble{what: fmt.Sprintf("the proxy went in place of an original of %s: it was not ready at that moment", p.Target), hint: "try again"}
		}
		if err != nil {
			return nil, err
		}
		pods, err := c.podsOf(ctx, p.Workload)
		pods = slices.DeleteFunc(pods, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil || isOver(&pod) })
		return namesOf(pods), err
	})
}

// awaitNone waits until no original is left, for as long as a pod may take to stop and a minute more.
func (c *Cluster) awaitNone(ctx context.Context, p *plan.Plan, tell Tell, left func() ([]string, error)) error {
	patience := time.Minute
	if grace := p.Workload.Template.Spec.TerminationGracePeriodSeconds; grace != nil {
		patience += time.Duration(*grace) * time.Second
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	told := teller{tell: tell}
	var names []string
	err := poll(bounded, func() (bool, error) {
		now, err := left()
		if err != nil {
			return false, err
		}
		names = now
		told.see("waiting for the originals to stop")
		return len(names) == 0, nil
	})
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return &trouble{
			what: fmt.Sprintf("the originals of %s do not stop: %s", p.Target, strings.Join(names, ", ")),
			hint: "does another controller keep them (an operator, a GitOps tool)? it would have to be paused",
		}
	}
	return c.explain("stopping the originals", err)
}

func namesOf(pods []corev1.Pod) []string {
	names := make([]string, len(pods))
	for i := range pods {
		names[i] = pods[i].Name
	}
	return names
}

// ProxyGone waits until the proxy pod ends or is deleted, and returns an error that says how; nil when ctx ends first.
func (c *Cluster) ProxyGone(ctx context.Context, p *plan.Plan) error {
	err := c.followPod(ctx, p.Pod.Name, func(pod *corev1.Pod) (bool, error) {
		switch {
		case pod == nil:
			return false, errors.New("the proxy pod was deleted")
		case pod.UID != "" && pod.DeletionTimestamp != nil:
			return false, errors.New("the proxy pod is being deleted" + byWhom(pod))
		case isOver(pod):
			return false, errors.New("the proxy pod is over: " + howItEnded(pod))
		}
		return false, nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// byWhom says who deletes a pod, as far as its condition tells.
func byWhom(pod *corev1.Pod) string {
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue
	})
	switch {
	case i >= 0:
		return ": " + lowerFirst(firstLine(pod.Status.Conditions[i].Message))
	case metav1.GetControllerOf(pod) != nil && metav1.GetControllerOf(pod).Kind == "ReplicaSet":
		return ": has the workload been changed, or scaled down?"
	}
	return ": somebody has ended the session (telepresence leave), or deleted it by hand"
}
