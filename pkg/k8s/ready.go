package k8s

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// errWatchEnded says that a watch ended as watches do, and is to be begun anew.
var errWatchEnded = errors.New("the watch ended")

// see looks at a pod, nil for one that is not there, and says whether to stop looking.
type see func(*corev1.Pod) (done bool, err error)

// followPod shows the pod to look: as it is, at each change, and every second. It outlasts a server that is away and
// returns look's error or the end of ctx.
func (c *Cluster) followPod(ctx context.Context, name string, look see) error {
	for {
		done, err := c.lookAndWatch(ctx, name, look)
		switch {
		case done:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errWatchEnded):
		case passing(err):
		default:
			return err
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// lookAndWatch is followPod for as long as one watch lasts.
func (c *Cluster) lookAndWatch(ctx context.Context, name string, look see) (bool, error) {
	pods := c.core.CoreV1().Pods(c.namespace)
	pod, err := pods.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if done, err := look(nil); done || err != nil {
			return done, err
		}
		return false, errWatchEnded
	}
	if err != nil {
		return false, c.explain(fmt.Sprintf("reading pod %q", name), err)
	}
	if done, err := look(pod); done || err != nil {
		return done, err
	}
	w, err := pods.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
		ResourceVersion: pod.ResourceVersion,
	})
	if apierrors.IsForbidden(err) { // then by asking again and again
		return false, errWatchEnded
	}
	if err != nil {
		return false, c.explain(fmt.Sprintf("watching pod %q", name), err)
	}
	defer w.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick.C:
		case event, more := <-w.ResultChan():
			changed, isPod := event.Object.(*corev1.Pod)
			switch {
			case !more, !isPod:
				return false, errWatchEnded
			case event.Type == watch.Deleted:
				pod = nil
			default:
				pod = changed
			}
		}
		if done, err := look(pod); done || err != nil {
			return done, err
		}
		if pod == nil {
			return false, errWatchEnded
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// poll asks four times a second until done says yes, fails for good, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	for {
		ok, err := done()
		switch {
		case ok:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !passing(err):
			return err
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}

// awaitPod follows a pod that is on its way until reached says that it has arrived; meanwhile tell hears what it waits for.
func (c *Cluster) awaitPod(ctx context.Context, name, container string, reached func(*corev1.Pod) bool, tell Tell) error {
	told := teller{tell: tell}
	return c.followPod(ctx, name, func(pod *corev1.Pod) (bool, error) {
		if pod == nil {
			return false, &trouble{what: fmt.Sprintf("the proxy pod %q was deleted by somebody else", name)}
		}
		if pod.DeletionTimestamp == nil && reached(pod) {
			return true, nil
		}
		events := c.podEvents(ctx, pod)
		line, err := whyNotReady(pod, container, events)
		if err != nil {
			return false, err
		}
		told.see(line)
		return false, nil
	})
}

// teller tells what something waits for, once, and only what it waits for longer than a moment.
type teller struct {
	tell  Tell
	line  string
	since time.Time
	said  bool
}

func (t *teller) see(line string) {
	switch {
	case line != t.line:
		t.line, t.since, t.said = line, time.Now(), false
	case line != "" && !t.said && time.Since(t.since) > 700*time.Millisecond:
		t.said = true
		t.tell(line)
	}
}

// podEvents are the pod's events, oldest first; none where they may not be seen, for they only explain.
func (c *Cluster) podEvents(ctx context.Context, pod *corev1.Pod) []corev1.Event {
	list, err := c.core.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(pod.UID)).String(),
	})
	if err != nil {
		return nil
	}
	sortEvents(list.Items)
	return list.Items
}

// isReady says whether a pod counts as ready, and is to stay.
func isReady(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// isOver says whether none of a pod's containers will ever run again.
func isOver(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// runs says whether the named container of the pod runs.
func runs(pod *corev1.Pod, container string) bool {
	status := containerStatus(pod.Status.ContainerStatuses, container)
	return status != nil && status.State.Running != nil
}

func containerStatus(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}
