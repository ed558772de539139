package k8s

import (
	"cmp"
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/k8s/undo"
)

// Session is one session as the cluster has it.
type Session struct {
	ID        string    `json:"id"`
	Namespace string    `json:"namespace"`
	Workload  string    `json:"workload"` // deployment/web
	Container string    `json:"container"`
	Owner     string    `json:"owner"` // user@host
	Since     time.Time `json:"since"`
	Alive     bool      `json:"alive"`             // its client was there within the last minute
	Problem   string    `json:"problem,omitempty"` // why the undo record cannot be read
	// Record restores the workload. It is empty if there is a Problem.
	Record undo.Record `json:"-"`
}

// Sessions lists the sessions of the namespace, or of all namespaces, by namespace and workload.
func (c *Cluster) Sessions(ctx context.Context, allNamespaces bool) ([]Session, error) {
	namespace := c.namespace
	if allNamespaces {
		namespace = metav1.NamespaceAll
	}
	var secrets *corev1.SecretList
	var leases *coordinationv1.LeaseList
	labelled := metav1.ListOptions{LabelSelector: plan.LabelSession}
	reads, readCtx := errgroup.WithContext(ctx)
	reads.Go(func() (err error) {
		secrets, err = c.core.CoreV1().Secrets(namespace).List(readCtx, labelled)
		return err
	})
	reads.Go(func() (err error) {
		leases, err = c.core.CoordinationV1().Leases(namespace).List(readCtx, labelled)
		return err
	})
	if err := reads.Wait(); err != nil {
		return nil, c.explain("listing sessions", err)
	}
	sessions := []Session{} // [] in JSON, not null
	for i := range secrets.Items {
		secret := &secrets.Items[i]
		if _, ours := secret.Data[plan.KeyUndo]; !ours {
			continue
		}
		var lease *coordinationv1.Lease
		if j := slices.IndexFunc(leases.Items, func(l coordinationv1.Lease) bool {
			return l.Namespace == secret.Namespace && l.Name == secret.Name
		}); j >= 0 {
			lease = &leases.Items[j]
		}
		sessions = append(sessions, sessionOf(secret, lease, c.clock.Now()))
	}
	slices.SortFunc(sessions, func(a, b Session) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Workload, b.Workload))
	})
	return sessions, nil
}

func sessionOf(secret *corev1.Secret, lease *coordinationv1.Lease, now time.Time) Session {
	h := holderOf(secret, lease, now)
	s := Session{
		ID: string(h.Session), Namespace: secret.Namespace, Workload: secret.Annotations[plan.AnnotationWorkload],
		Container: h.Container, Owner: h.Owner, Since: h.Since, Alive: h.Alive,
	}
	record, err := undo.Parse(secret.Data[plan.KeyUndo])
	if err == nil {
		err = record.Within(secret.Namespace)
	}
	if err != nil {
		s.Problem = err.Error()
		return s
	}
	s.Record = record
	return s
}
