package k8s

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// Snapshot reads all that a plan for the request needs, at once. What only makes a plan better (quotas, autoscalers, …) is left
// empty where it may not be read.
func (c *Cluster) Snapshot(ctx context.Context, r plan.Request) (plan.Snapshot, error) {
	s := plan.Snapshot{Namespace: c.namespace}
	reads, ctx := errgroup.WithContext(ctx)
	reads.Go(func() (err error) {
		switch r.Operation {
		case plan.Swap:
			if s.Workload, err = c.workload(ctx, r.Target); err == nil {
				s.Originals, err = c.podsOf(ctx, s.Workload)
			}
		case plan.New:
			s.Taken, err = c.taken(ctx, r.Target.Name)
		case plan.Standing:
			s.Standing, err = c.standing(ctx, r.Target)
		}
		return err
	})
	reads.Go(func() (err error) { s.Held, err = c.holder(ctx, r.Target.Resource()); return err })

	core, all := c.core.CoreV1(), metav1.ListOptions{}
	optional := func(what string, read func() error) {
		reads.Go(func() error {
			if err := read(); err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
				return c.explain("listing "+what, err)
			}
			return nil
		})
	}
	optional("services", func() error { l, err := core.Services(c.namespace).List(ctx, all); s.Services = l.Items; return err })
	optional("quotas", func() error {
		l, err := core.ResourceQuotas(c.namespace).List(ctx, all)
		s.Quotas = l.Items
		return err
	})
	optional("limit ranges", func() error {
		l, err := core.LimitRanges(c.namespace).List(ctx, all)
		s.LimitRanges = l.Items
		return err
	})
	optional("volume claims", func() (err error) { s.Claims, err = c.claims(ctx); return err })
	optional("disruption budgets", func() error {
		l, err := c.core.PolicyV1().PodDisruptionBudgets(c.namespace).List(ctx, all)
		s.Budgets = l.Items
		return err
	})
	optional("autoscalers", func() error {
		l, err := c.core.AutoscalingV2().HorizontalPodAutoscalers(c.namespace).List(ctx, all)
		s.HPAs = l.Items
		return err
	})
	if r.ServiceAccount != "" {
		optional("service accounts", func() (err error) { s.ServiceAccounts, err = c.serviceAccounts(ctx); return err })
	}
	if err := reads.Wait(); err != nil {
		return plan.Snapshot{}, err
	}
	return s, nil
}

// serviceAccounts lists the namespace's; never nil without an error.
func (c *Cluster) serviceAccounts(ctx context.Context) ([]string, error) {
	list, err := c.core.CoreV1().ServiceAccounts(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name
	}
	slices.Sort(names)
	return names, nil
}

// claims are the namespace's, and never nil: that would say that they could not be read.
func (c *Cluster) claims(ctx context.Context) ([]corev1.PersistentVolumeClaim, error) {
	l, err := c.core.CoreV1().PersistentVolumeClaims(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return append([]corev1.PersistentVolumeClaim{}, l.Items...), nil
}

// taken tells which object of a new proxy's name is there already, or nothing.
func (c *Cluster) taken(ctx context.Context, name string) (string, error) {
	_, err := c.core.CoreV1().Services(c.namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		return fmt.Sprintf("a service %q", name), nil
	case !apierrors.IsNotFound(err):
		return "", c.explain(fmt.Sprintf("asking for a service %q", name), err)
	}
	_, err = c.core.CoreV1().Pods(c.namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		return fmt.Sprintf("a pod %q", name), nil
	case !apierrors.IsNotFound(err):
		return "", c.explain(fmt.Sprintf("asking for a pod %q", name), err)
	}
	_, err = c.core.AppsV1().Deployments(c.namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		return fmt.Sprintf("a deployment %q", name), nil
	case !apierrors.IsNotFound(err):
		return "", c.explain(fmt.Sprintf("asking for a deployment %q", name), err)
	}
	return "", nil
}

// standing is a ready pod of a proxy that the user has deployed, or nil when none is ready.
func (c *Cluster) standing(ctx context.Context, target plan.Target) (*corev1.Pod, error) {
	w, err := c.workload(ctx, target)
	if err != nil {
		return nil, err
	}
	pods, err := c.podsOf(ctx, w)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		if pods[i].Status.Phase == corev1.PodRunning && pods[i].DeletionTimestamp == nil {
			return &pods[i], nil
		}
	}
	return nil, nil
}

// Held says that somebody's session has the workload. The session may be over, its client having died: then Alive is false, and
// Restore puts things back.
type Held struct {
	plan.Holder
	Workload string
}

// Error says who has the workload, and since when.
func (h *Held) Error() string {
	return fmt.Sprintf("%s is already swapped by %s since %s", h.Workload, h.Owner, h.Since.Local().Format("15:04 on 2 Jan"))
}

// Hint says how to end the other session.
func (h *Held) Hint() string { return "if that session is over: telepresence leave " + h.Workload }

// holder is whose session has the Secret of that name, or nil.
func (c *Cluster) holder(ctx context.Context, name string) (*plan.Holder, error) {
	secret, err := c.core.CoreV1().Secrets(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, c.explain("asking for another session", err)
	}
	lease, err := c.core.CoordinationV1().Leases(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, c.explain("asking for another session", err)
	}
	h := holderOf(secret, lease, c.clock.Now())
	return &h, nil
}

// holderOf reads a session's Secret and Lease. lease is empty for a session without.
func holderOf(secret *corev1.Secret, lease *coordinationv1.Lease, now time.Time) plan.Holder {
	since, err := time.Parse(time.RFC3339, secret.Annotations[plan.AnnotationSince])
	if err != nil {
		since = secret.CreationTimestamp.Time
	}
	return plan.Holder{
		Owner:     secret.Annotations[plan.AnnotationOwner],
		Session:   plan.SessionID(secret.Labels[plan.LabelSession]),
		Container: secret.Annotations[plan.AnnotationContainer],
		Since:     since,
		Alive:     alive(secret, lease, now),
	}
}

// alive says whether a session's client was there within the lease's time. Its Secret is there a moment before its Lease.
func alive(secret *corev1.Secret, lease *coordinationv1.Lease, now time.Time) bool {
	last, lasts := secret.CreationTimestamp.Time, time.Minute
	if lease != nil && lease.Spec.RenewTime != nil {
		last = lease.Spec.RenewTime.Time
	}
	if lease != nil && lease.Spec.LeaseDurationSeconds != nil {
		lasts = time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second
	}
	return now.Before(last.Add(lasts))
}

// held makes an error of whoever has the plan's Secret.
func (c *Cluster) held(ctx context.Context, p *plan.Plan) error {
	h, err := c.holder(ctx, p.Secret.Name)
	switch {
	case err != nil:
		return err
	case h == nil:
		return errors.New("another session has just ended: try again")
	}
	return &Held{Holder: *h, Workload: p.Target.String()}
}
