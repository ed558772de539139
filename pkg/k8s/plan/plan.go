// Package plan decides how a proxy takes the place of a container: from what
// was read from the cluster and what the user asks for, it makes the proxy pod,
// the ports, the order of things, and the record of how to put them back.
//
// It is pure: it asks no cluster, no clock and no random source, so that a plan
// can be printed, compared and tested, and nothing is changed before the whole
// of it holds.
package plan

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/telepresence/telepresence/pkg/k8s/undo"
)

// SessionID names a session, in labels and in the names of what it makes.
type SessionID string

// Operation is what is done to get a proxy.
type Operation int

// The operations.
const (
	Swap     Operation = iota // take the place of a workload's container
	New                       // make a pod of our own
	Standing                  // use a proxy that runs already
)

// String is the operation in one word.
func (o Operation) String() string {
	return [...]string{Swap: "swap", New: "new", Standing: "standing"}[o]
}

// Request is what the user asks for.
type Request struct {
	Operation      Operation
	Target         Target
	Expose         []Expose
	ToPod          []Port // local ports that lead to the pod's
	FromPod        []Port // ports on the pod's loopback that lead here
	ServiceAccount string // empty: the template's
	Session        SessionID
	Owner          string // user@host
	Now            time.Time
	AgentImage     string
	ReadImage      bool          // have the original's image say what environment it sets
	Grace          time.Duration // how long the agent waits for a client that is gone; 0: DefaultGrace
	Keys           Keys
}

// DefaultGrace is how long an agent waits for its client to come back.
const DefaultGrace = time.Minute

// Keys are what the two ends know each other by, as pkg/proxy makes them. They
// go into the session's Secret and nowhere else.
type Keys struct {
	HostKey, ClientPublic, Token []byte
}

// Workload is what is swapped, whatever its kind.
type Workload struct {
	APIVersion string // apps/v1
	Kind       string // Deployment
	Resource   string // deployments: the plural, as paths have it
	Name       string
	UID        string
	Replicas   int32
	Paused     bool
	Template   corev1.PodTemplateSpec
	Selector   *metav1.LabelSelector
	Controller string // what made the workload and may scale it back, as in "Kafka events"; or empty

	// A StatefulSet's only.
	ServiceName          string
	VolumeClaimTemplates []corev1.PersistentVolumeClaim
	Ordinal              int32 // of its first pod

	// A Deployment's only: the ReplicaSet of its present template, and how it
	// replaces its pods.
	ReplicaSet *ReplicaSet
	Update     appsv1.DeploymentStrategy
}

// ReplicaSet is one of a Deployment's.
type ReplicaSet struct {
	Name, UID, Hash string
}

// Holder is the session that a workload is swapped by.
type Holder struct {
	Owner     string
	Session   SessionID
	Container string
	Since     time.Time
	Alive     bool // its client was there within the last minute
}

// Snapshot is what was read from the cluster, all at once.
type Snapshot struct {
	Namespace   string
	Workload    *Workload    // nil unless one is swapped
	Originals   []corev1.Pod // the workload's pods
	Services    []corev1.Service
	HPAs        []autoscalingv2.HorizontalPodAutoscaler
	Quotas      []corev1.ResourceQuota
	LimitRanges []corev1.LimitRange
	Claims      []corev1.PersistentVolumeClaim // nil where they may not be listed
	Budgets     []policyv1.PodDisruptionBudget
	Held        *Holder // whose session the workload is swapped by

	// ServiceAccounts are the namespace's; nil where they may not be listed.
	ServiceAccounts []string
	// Standing is the running proxy pod of --deployment.
	Standing *corev1.Pod
	// Taken tells of --new-deployment that a pod or service of the name is there.
	Taken string
}

// Strategy is how the originals go, and come back.
type Strategy string

// The strategies.
const (
	// Adopt makes the proxy one of the ReplicaSet's own pods, so that the
	// ReplicaSet itself removes the original, and makes a new one should the
	// proxy end in whatever way.
	Adopt Strategy = "adopt"
	// Scale scales the workload to nothing while the proxy is there.
	Scale Strategy = "scale"
	// Leave leaves the workload, or the lack of one, as it is.
	Leave Strategy = "leave"
)

// Plan is all that a session does to the cluster.
type Plan struct {
	Session        SessionID
	Namespace      string
	Operation      Operation
	Target         Target
	Workload       *Workload // nil unless one is swapped
	Container      string    // the one that the proxy stands in for
	Strategy       Strategy
	OriginalsFirst bool   // the originals go before the proxy is made
	Reason         string // why the strategy, and the order
	Pod            *corev1.Pod
	Service        *corev1.Service // New only, where ports are exposed
	Secret         *corev1.Secret  // the record, and the keys
	Lease          *coordinationv1.Lease
	Record         undo.Record
	Ports          []Expose
	AgentPort      Port
	Warnings       []string
}

// Make decides. Its error is a *Refusal where the cluster is the reason, and a
// *UsageError where the user's words are.
func Make(s Snapshot, r Request) (*Plan, error) {
	if r.Grace == 0 {
		r.Grace = DefaultGrace
	}
	if r.Target.Kind == "" {
		r.Target.Kind = KindDeployment
	}
	p := &Plan{Session: r.Session, Namespace: s.Namespace, Operation: r.Operation, Target: r.Target}
	if r.Operation == Swap {
		p.Workload = s.Workload
	}
	if err := refuse(s, r); err != nil {
		return nil, err
	}
	if err := p.choosePod(s, r); err != nil {
		return nil, err
	}
	if err := p.choosePorts(r); err != nil {
		return nil, err
	}
	if r.Operation == Standing {
		p.AgentPort, p.Strategy, p.Reason = standingPort(p.container()), Leave, "the proxy runs already"
		return p, p.keep(r)
	}
	if err := p.makeProxy(s, r); err != nil {
		return nil, err
	}
	p.chooseStrategy(s)
	p.Service = p.newService(r)
	if err := p.refuseRoom(s); err != nil {
		return nil, err
	}
	p.warn(s)
	return p, p.keep(r)
}

// choosePod finds the pod that the proxy is made from, and the container in it.
func (p *Plan) choosePod(s Snapshot, r Request) (err error) {
	switch r.Operation {
	case Swap:
		p.Pod = template(s, r)
		p.Container, err = chooseContainer(p.Pod.Spec, r.Target)
	case Standing:
		p.Pod = s.Standing.DeepCopy()
		p.Container, err = standingContainer(p.Pod, r.Target)
	case New:
		p.Pod, p.Container = freshPod(s, r), freshContainer
	}
	return err
}

// Own makes the session's Secret, now that it has a UID, the proxy pod's owner:
// no ReplicaSet whose selector fits takes the pod for its own then, and whoever
// deletes the Secret deletes the pod, and what else the session has made. The
// pod of a standing proxy stays its Deployment's.
func (p *Plan) Own(secretUID string) {
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Secret", Name: p.Secret.Name, UID: types.UID(secretUID)}
	p.Lease.OwnerReferences = []metav1.OwnerReference{owner}
	if p.Service != nil {
		p.Service.OwnerReferences = []metav1.OwnerReference{owner}
	}
	if p.Operation != Standing {
		owner.Controller = new(true)
		p.Pod.OwnerReferences = []metav1.OwnerReference{owner}
	}
}

// String names what the plan is about.
func (p *Plan) String() string { return fmt.Sprintf("session %s on %s", p.Session, p.Target) }

// container is the one that the proxy stands in for.
func (p *Plan) container() *corev1.Container {
	for i := range p.Pod.Spec.Containers {
		if c := &p.Pod.Spec.Containers[i]; c.Name == p.Container {
			return c
		}
	}
	return nil
}
