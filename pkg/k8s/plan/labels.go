package plan

// What the objects of a session are called and labelled.
const (
	prefix = "telepresence-"

	// LabelSession is on everything that a session makes; its value is the
	// session's id.
	LabelSession = "telepresence.io/session"
	// LabelRole tells a session's objects apart for a human.
	LabelRole = "telepresence.io/role"

	// AnnotationOwner is who runs the session: user@host.
	AnnotationOwner = "telepresence.io/owner"
	// AnnotationWorkload is what is swapped: deployment/web.
	AnnotationWorkload = "telepresence.io/workload"
	// AnnotationContainer is the container that the proxy stands in for.
	AnnotationContainer = "telepresence.io/container"
	// AnnotationSince is when the session began (RFC 3339).
	AnnotationSince = "telepresence.io/since"

	// DeletionCost is the annotation by which a ReplicaSet chooses whom it
	// deletes: the lowest first
	// (https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost).
	DeletionCost = "controller.kubernetes.io/pod-deletion-cost"
	// HighestCost makes a pod the last to be deleted.
	HighestCost = "2147483647"
	// TemplateHash is the label by which a Deployment's ReplicaSet knows its pods.
	TemplateHash = "pod-template-hash"

	// SessionDir is where the agent finds the session's keys.
	SessionDir = "/.telepresence"
)

// The keys of a session's Secret.
const (
	KeyUndo         = "undo.json"
	KeyHostKey      = "host_key"
	KeyClientPublic = "client.pub"
	KeyToken        = "token"
)

// sessionVolume is the name of the volume with the Secret.
const sessionVolume = "telepresence-session"

// controllerLabels are what controllers put on a template's pods, by which they
// know them as theirs.
var controllerLabels = []string{
	TemplateHash, "controller-revision-hash", "statefulset.kubernetes.io/pod-name",
	"apps.kubernetes.io/pod-index", "rollouts-pod-template-hash", "pod-template-generation",
}
