package k8s

import (
	"context"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// dryRun has the server go through a request, with all that is asked whether it may be, and keep nothing of it.
var dryRun = []string{metav1.DryRunAll}

// Try asks the server whether it would let the plan's pod in, and let the workload be scaled, before anything is changed: what no
// plan can know, policies and webhooks and classes that are not there, is told then.
func (c *Cluster) Try(ctx context.Context, p *plan.Plan) error {
	if p.Operation == plan.Standing {
		return nil
	}
	_, err := c.core.CoreV1().Pods(c.namespace).Create(ctx, p.Pod, metav1.CreateOptions{DryRun: dryRun})
	if err != nil && !untold(err) && !madeRoom(err, p) {
		return c.explain("making the proxy pod", err)
	}
	if p.Workload == nil || p.Strategy == plan.Leave {
		return nil
	}
	if err := c.scale(ctx, p, dryRun); err != nil && !untold(err) {
		return err
	}
	return nil
}

// madeRoom says whether err is about a quota in which the originals, which go first, leave room.
func madeRoom(err error, p *plan.Plan) bool {
	return p.OriginalsFirst && apierrors.IsForbidden(err) && overQuota.MatchString(err.Error())
}

// untold says whether err tells nothing of what the request would come to: a webhook that can't be asked without consequences
// (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#side-effects), or a passing trouble.
func untold(err error) bool {
	return apierrors.IsConflict(err) || passing(err) ||
		apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "does not support dry run")
}
