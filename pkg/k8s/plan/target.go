package plan

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// Port is a TCP or UDP port number, 1 to 65535.
type Port uint16

// ParsePort reads a port number.
func ParsePort(text string) (Port, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	switch {
	case text == "" || errors.Is(err, strconv.ErrSyntax):
		return 0, fmt.Errorf("%q is not a port number", text)
	case err != nil || n < 1 || n > 65535:
		return 0, fmt.Errorf("port %s is not between 1 and 65535", text)
	}
	return Port(n), nil
}

// Expose is a port of the pod's and the local one that its traffic comes to.
type Expose struct {
	Local, Remote Port
}

// ParseExpose reads PORT, which is both, or LOCAL:REMOTE.
func ParseExpose(text string) (Expose, error) {
	local, remote, two := strings.Cut(text, ":")
	l, err := ParsePort(local)
	if err != nil {
		return Expose{}, fmt.Errorf("%w: expected PORT or LOCAL:REMOTE, as in 8080:80", err)
	}
	if !two {
		return Expose{Local: l, Remote: l}, nil
	}
	r, err := ParsePort(remote)
	if err != nil {
		return Expose{}, fmt.Errorf("%w: expected PORT or LOCAL:REMOTE, as in 8080:80", err)
	}
	return Expose{Local: l, Remote: r}, nil
}

// String is the form that ParseExpose reads.
func (e Expose) String() string {
	if e.Local == e.Remote {
		return strconv.Itoa(int(e.Local))
	}
	return fmt.Sprintf("%d:%d", e.Local, e.Remote)
}

// Target is a workload and one of its containers, as the user names them.
type Target struct {
	Kind      string // as kubectl takes it: "deployment", "statefulset", "rollouts.argoproj.io"
	Name      string
	Container string // empty: the first
}

// The kinds that have short names here.
const (
	KindDeployment  = "deployment"
	KindStatefulSet = "statefulset"
	KindReplicaSet  = "replicaset"
)

// kinds are the names of a kind that kubectl takes too, and those of kinds that
// others have brought.
var kinds = map[string]string{
	"dc": "deploymentconfigs.apps.openshift.io", "deploymentconfig": "deploymentconfigs.apps.openshift.io", "deploymentconfigs": "deploymentconfigs.apps.openshift.io",
	"ro": "rollouts.argoproj.io", "rollout": "rollouts.argoproj.io", "rollouts": "rollouts.argoproj.io",
	"deploy": KindDeployment, "deployment": KindDeployment, "deployments": KindDeployment, "deployment.apps": KindDeployment, "deployments.apps": KindDeployment,
	"sts": KindStatefulSet, "statefulset": KindStatefulSet, "statefulsets": KindStatefulSet, "statefulset.apps": KindStatefulSet, "statefulsets.apps": KindStatefulSet,
	"rs": KindReplicaSet, "replicaset": KindReplicaSet, "replicasets": KindReplicaSet, "replicaset.apps": KindReplicaSet, "replicasets.apps": KindReplicaSet,
}

// without are kinds that nobody can swap, and why.
var without = map[string]string{
	"ds": "a DaemonSet", "daemonset": "a DaemonSet", "daemonsets": "a DaemonSet", "daemonset.apps": "a DaemonSet", "daemonsets.apps": "a DaemonSet",
	"po": "a pod", "pod": "a pod", "pods": "a pod",
	"job": "a Job", "jobs": "a Job", "job.batch": "a Job", "jobs.batch": "a Job",
	"cj": "a CronJob", "cronjob": "a CronJob", "cronjobs": "a CronJob", "cronjob.batch": "a CronJob", "cronjobs.batch": "a CronJob",
	"svc": "a service", "service": "a service", "services": "a service",
}

// ParseTarget reads [KIND/]NAME[:CONTAINER].
func ParseTarget(text string) (Target, error) {
	t := Target{Kind: KindDeployment}
	whole := text
	if kind, rest, ok := strings.Cut(text, "/"); ok {
		t.Kind = strings.ToLower(kind)
		if known, ok := kinds[t.Kind]; ok {
			t.Kind = known
		}
		if t.Kind == "" || strings.Contains(rest, "/") {
			return Target{}, fmt.Errorf("%q is not of the form [KIND/]NAME[:CONTAINER]", whole)
		}
		if what, ok := without[t.Kind]; ok {
			return Target{}, fmt.Errorf("%q: %s has no number of replicas that could go to 0, as a deployment, a statefulset or a replicaset has", whole, what)
		}
		text = rest
	}
	name, container, two := strings.Cut(text, ":")
	if name == "" || two && container == "" || strings.Contains(container, ":") {
		return Target{}, fmt.Errorf("%q is not of the form [KIND/]NAME[:CONTAINER]", whole)
	}
	for _, part := range []string{t.Kind, name, container} {
		if err := checkName(part); err != nil {
			return Target{}, fmt.Errorf("%q: %w", whole, err)
		}
	}
	t.Name, t.Container = name, container
	return t, nil
}

// longest is how long an object's name may be.
const longest = 253

// checkName refuses what can be no object's name (RFC 1123's subdomain, as
// Kubernetes takes it): it would come back from the server as a riddle.
func checkName(name string) error {
	if len(name) > longest {
		return fmt.Errorf("the name %.20s… is longer than %d characters", name, longest)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		inside := i > 0 && i < len(name)-1 && (r == '-' || r == '.')
		if !letter && !inside {
			return fmt.Errorf("%q is no name in Kubernetes: lower case letters, digits, - and . inside", name)
		}
	}
	return nil
}

// String is the workload as messages name it: deployment/web.
func (t Target) String() string { return t.Kind + "/" + t.Name }

// Flag is the workload as one types it, without its container: web, or
// statefulset/web.
func (t Target) Flag() string {
	if t.Kind == KindDeployment || t.Kind == "" {
		return t.Name
	}
	return t.String()
}

// Resource is the name of what the session of a workload keeps in the cluster.
// There is one for each workload, so that the second session to come finds the
// first one's.
func (t Target) Resource() string {
	kind, _, _ := strings.Cut(t.Kind, ".")
	if kind == "" {
		kind = KindDeployment
	}
	name := prefix + kind + "-" + t.Name
	if len(name) <= longest {
		return name
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.Name))
	return strings.TrimRight(name[:longest-17], "-.") + fmt.Sprintf("-%016x", h.Sum64())
}
