package k8s

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

const (
	podPath        = "/api/v1/namespaces/ns/pods/"
	secretPath     = "/api/v1/namespaces/ns/secrets/telepresence-deployment-web"
	leasePath      = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/telepresence-deployment-web"
	deploymentPath = "/apis/apps/v1/namespaces/ns/deployments/web"
)

// world is a cluster with a deployment of two pods behind a service, and what controllers and kubelets make of every change.
type world struct {
	*apiServer
	made    int          // pods made so far
	victim  string       // the pod that the ReplicaSet would delete first, whatever its cost
	least   atomic.Int32 // the least number of pods that the service has ever led to
	without bool         // the kubelet starts no pod
	lacking string       // an image that no node can pull
}

func newWorld(t *testing.T) (*world, *Cluster) {
	t.Helper()
	s, c := startAPIServer(t)
	w := &world{apiServer: s}
	meta := metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "deployment", Annotations: map[string]string{revision: "1"}}
	labels := map[string]string{"app": "web"}
	replicas := int32(2)
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Image: "app:1", Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
		}}},
	}
	w.put(t, deploymentPath, &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: meta,
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	})
	controls := true
	rs := meta
	rs.Name, rs.UID, rs.Labels = "web-5d", "replicaset", map[string]string{"app": "web", plan.TemplateHash: "5d"}
	rs.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "deployment", Controller: &controls}}
	w.put(t, "/apis/apps/v1/namespaces/ns/replicasets/web-5d", &appsv1.ReplicaSet{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"}, ObjectMeta: rs})
	w.put(t, "/api/v1/namespaces/ns/services/web", &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{Selector: labels},
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reconcileLocked("")
	w.least.Store(2)
	w.react = func(_ *apiServer, change string) { w.reconcileLocked(change) }
	return w, c
}

// reconcileLocked does what the cluster would do.
func (w *world) reconcileLocked(string) {
	var d appsv1.Deployment
	if w.atLocked(deploymentPath, &d) {
		for w.replicaSetLocked(int(*d.Spec.Replicas)) {
			continue
		}
	}
	var ready []discoveryv1.Endpoint
	for _, path := range sorted(w.objects) {
		var pod corev1.Pod
		if !strings.HasPrefix(path, podPath) || !w.atLocked(path, &pod) {
			continue
		}
		switch {
		case w.without:
		case w.lacking != "" && pod.Spec.Containers[0].Image == w.lacking:
			if pod.Status.Phase == "" {
				w.strandLocked(path, &pod)
			}
		case pod.Status.Phase == "", pod.Status.Phase == corev1.PodPending:
			w.startLocked(path, &pod)
		}
		if isReady(&pod) && pod.Labels["app"] == "web" {
			ready = append(ready, discoveryv1.Endpoint{TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod.Name}})
		}
	}
	w.least.Store(min(w.least.Load(), int32(len(ready))))
	w.putLocked("MODIFIED", "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices/web-1", unstruct(&discoveryv1.EndpointSlice{
		TypeMeta:   metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}, Endpoints: ready,
	}))
}

// replicaSetLocked makes or deletes one pod, and says whether it did.
func (w *world) replicaSetLocked(want int) bool {
	var own []corev1.Pod
	for _, path := range sorted(w.objects) {
		var pod corev1.Pod
		if strings.HasPrefix(path, podPath) && w.atLocked(path, &pod) {
			if owner := metav1.GetControllerOf(&pod); owner != nil && owner.UID == "replicaset" && pod.Labels[plan.TemplateHash] == "5d" {
				own = append(own, pod)
			}
		}
	}
	switch {
	case len(own) < want:
		w.made++
		controls := true
		name := fmt.Sprintf("web-5d-%d", w.made)
		w.putLocked("ADDED", podPath+name, unstruct(&corev1.Pod{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Labels: map[string]string{"app": "web", plan.TemplateHash: "5d"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d", UID: "replicaset", Controller: &controls}},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
		}))
		return true
	case len(own) > want:
		slices.SortStableFunc(own, func(a, b corev1.Pod) int {
			return w.costs(a) - w.costs(b)
		})
		w.deleteLocked(podPath + own[0].Name)
		return true
	}
	return false
}

func (w *world) costs(pod corev1.Pod) int {
	switch {
	case w.victim != "" && strings.Contains(pod.Name, w.victim):
		return -1
	case pod.Annotations[plan.DeletionCost] == plan.HighestCost:
		return 1
	}
	return 0
}

// strandLocked is what a pod looks like whose image can't be pulled.
func (w *world) strandLocked(path string, pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodPending
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name:  pod.Spec.Containers[0].Name,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "pulling " + w.lacking + ": Not held here\nand more"}},
	}}
	w.putLocked("MODIFIED", path, unstruct(pod))
}

func (w *world) startLocked(path string, pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodRunning
	pod.Status.ContainerStatuses = nil
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	for _, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		})
	}
	w.putLocked("MODIFIED", path, unstruct(pod))
}

func (w *world) replicas(t *testing.T) int32 {
	t.Helper()
	var d appsv1.Deployment
	if !w.at(deploymentPath, &d) {
		t.Fatal("the deployment is gone")
	}
	return *d.Spec.Replicas
}

func tell(t *testing.T) Tell {
	return func(line string) { t.Log(line) }
}

// unstruct is an object as the server keeps it.
func unstruct(object any) *unstructured.Unstructured {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		panic(err)
	}
	return &unstructured.Unstructured{Object: fields}
}
