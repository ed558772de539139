package k8s

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

func swapRequest() plan.Request {
	return plan.Request{
		Operation: plan.Swap, Target: plan.Target{Kind: plan.KindDeployment, Name: "web"}, Session: "5e55",
		Owner: "me@here", Now: time.Now(), AgentImage: "agent:1", Keys: plan.Keys{HostKey: []byte("k"), ClientPublic: []byte("p"), Token: []byte("t")},
	}
}

func makePlan(t *testing.T, c *Cluster) *plan.Plan {
	t.Helper()
	request := swapRequest()
	snapshot, err := c.Snapshot(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Make(snapshot, request)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func swap(t *testing.T, c *Cluster) *plan.Plan {
	t.Helper()
	p := makePlan(t, c)
	for _, step := range []func() error{
		func() error { return c.Hold(t.Context(), p) },
		func() error { return c.TakeDown(t.Context(), p, tell(t)) },
		func() error { return c.StartProxy(t.Context(), p, tell(t)) },
		func() error { return c.TakeOver(t.Context(), p, tell(t)) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestSwapAndRestore(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	p := swap(t, c)
	if p.Strategy != plan.Adopt {
		t.Fatalf("strategy %s", p.Strategy)
	}
	want := []string{"POST " + strings.TrimSuffix(secretPath, "/telepresence-deployment-web"), "POST " + strings.TrimSuffix(leasePath, "/telepresence-deployment-web"), "POST " + strings.TrimSuffix(podPath, "/"), "PATCH " + deploymentPath, "PATCH " + podPath + p.Pod.Name}
	if got := w.changes(); !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if n := w.replicas(t); n != 1 {
		t.Errorf("scaled to %d", n)
	}
	pods, err := c.podsOf(t.Context(), p.Workload)
	if err != nil || len(pods) != 0 {
		t.Errorf("originals %v, %v", pods, err)
	}

	for range 2 { // anyone may, again
		if err := c.Restore(t.Context(), p.Record, tell(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.replicas(t); n != 2 {
		t.Errorf("scaled back to %d", n)
	}
	for _, path := range []string{secretPath, leasePath, podPath + p.Pod.Name} {
		if w.at(path, new(map[string]any)) {
			t.Errorf("%s is still there", path)
		}
	}
	if least := w.least.Load(); least < 1 {
		t.Errorf("at some moment the service led to %d pods", least)
	}
}

// TestOriginalsFirst: where a port of the node is held, the originals go first, and come back when the proxy is gone.
func TestOriginalsFirst(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	var d appsv1.Deployment
	w.at(deploymentPath, &d)
	d.Spec.Template.Spec.Containers[0].Ports[0].HostPort = 8080
	w.put(t, deploymentPath, &d)
	p := swap(t, c)
	if !p.OriginalsFirst || w.replicas(t) != 0 {
		t.Fatalf("originals first %v, %d replicas", p.OriginalsFirst, w.replicas(t))
	}
	changes := w.changes()
	if scaled, made := slices.Index(changes, "PATCH "+deploymentPath), slices.Index(changes, "POST "+strings.TrimSuffix(podPath, "/")); scaled < 0 || scaled > made {
		t.Errorf("changes %q", changes)
	}
	if err := c.Restore(t.Context(), p.Record, tell(t)); err != nil {
		t.Fatal(err)
	}
	changes = w.changes()
	if gone, scaled := slices.Index(changes, "DELETE "+podPath+p.Pod.Name), slices.Index(changes, "PATCH "+deploymentPath); gone < 0 || gone > scaled {
		t.Errorf("changes %q", changes)
	}
	if n := w.replicas(t); n != 2 {
		t.Errorf("scaled back to %d", n)
	}
}

func TestTakeOverNoticesThatTheProxyWent(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	w.victim = "telepresence"
	p := makePlan(t, c)
	if err := errors.Join(c.Hold(t.Context(), p), c.StartProxy(t.Context(), p, tell(t))); err != nil {
		t.Fatal(err)
	}
	err := c.TakeOver(t.Context(), p, tell(t))
	if err == nil || !strings.Contains(err.Error(), "the proxy went in place of an original") {
		t.Errorf("taking over: %v", err)
	}
	if err := c.Restore(t.Context(), p.Record, tell(t)); err != nil {
		t.Error(err)
	}
	if n := w.replicas(t); n != 2 {
		t.Errorf("scaled back to %d", n)
	}
}

func TestHoldIsOneSessions(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	first, second := makePlan(t, c), makePlan(t, c)
	if err := c.Hold(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	var held *Held
	if err := c.Hold(t.Context(), second); !errors.As(err, &held) || !held.Alive || held.Owner != "me@here" {
		t.Fatalf("holding twice: %v", err)
	}
	sessions, err := c.Sessions(t.Context(), false)
	if err != nil || len(sessions) != 1 || sessions[0].Workload != "deployment/web" || sessions[0].Problem != "" || !sessions[0].Alive {
		t.Errorf("sessions %+v, %v", sessions, err)
	}
	if sessions[0].Record.Serving != 2 {
		t.Errorf("%d originals are noted to serve", sessions[0].Record.Serving)
	}

	var lease coordinationv1.Lease
	w.at(leasePath, &lease)
	lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(-2 * time.Minute)}
	w.put(t, leasePath, &lease)
	if err := c.Hold(t.Context(), second); !errors.As(err, &held) || held.Alive {
		t.Errorf("a session without a sign of life: %v, %+v", err, held)
	}
	if err := c.renew(t.Context(), first); err != nil {
		t.Error(err)
	}
	if err := c.Hold(t.Context(), second); !errors.As(err, &held) || !held.Alive {
		t.Errorf("a session that was renewed: %v, %+v", err, held)
	}
	second.Session = "0the"
	if err := c.renew(t.Context(), second); err == nil {
		t.Error("another session renewed the lease")
	}
}

func TestRestoreOutlastsServer(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	p := swap(t, c)
	away := 2
	w.mu.Lock()
	w.refuse = func(method, _ string) (int, string) {
		if method == "GET" || away == 0 {
			return 0, ""
		}
		away--
		return 503, "starting"
	}
	w.mu.Unlock()
	if err := c.Restore(t.Context(), p.Record, tell(t)); err != nil {
		t.Fatal(err)
	}
	if n := w.replicas(t); n != 2 || w.at(secretPath, new(map[string]any)) {
		t.Errorf("%d replicas; the record is there: %v", n, w.at(secretPath, new(map[string]any)))
	}
}

func TestRestoreWithoutWorkload(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	p := swap(t, c)
	w.mu.Lock()
	w.deleteLocked(deploymentPath)
	w.mu.Unlock()
	if err := c.Restore(t.Context(), p.Record, tell(t)); err != nil {
		t.Fatal(err)
	}
	if w.at(podPath+p.Pod.Name, new(map[string]any)) || w.at(secretPath, new(map[string]any)) {
		t.Error("something is left")
	}
}

func TestRestoreForbidden(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	p := swap(t, c)
	w.mu.Lock()
	w.refuse = func(method, path string) (int, string) {
		if method == "PATCH" && path == deploymentPath {
			return 403, `deployments.apps "web" is forbidden: User "bob" cannot patch resource "deployments" in API group "apps" in the namespace "ns"`
		}
		return 0, ""
	}
	w.mu.Unlock()
	err := c.Restore(t.Context(), p.Record, tell(t))
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), "docs/rights.yaml") || !strings.Contains(err.Error(), "deployment/web is not restored") {
		t.Errorf("restoring: %v", err)
	}
	if !w.at(secretPath, new(map[string]any)) {
		t.Error("the record is gone, and with it the way back")
	}
}

func TestProxyGone(t *testing.T) {
	t.Parallel()
	w, c := newWorld(t)
	p := swap(t, c)
	gone := make(chan error, 1)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() { gone <- c.ProxyGone(t.Context(), p) })
	w.mu.Lock()
	w.deleteLocked(podPath + p.Pod.Name)
	w.mu.Unlock()
	if err := <-gone; err == nil || !strings.Contains(err.Error(), "deleted") {
		t.Errorf("the proxy is gone: %v", err)
	}

	ended, end := context.WithCancel(t.Context())
	end()
	if err := c.ProxyGone(ended, p); err != nil {
		t.Errorf("after the end of the session: %v", err)
	}
}
