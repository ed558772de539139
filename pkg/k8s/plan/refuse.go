package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Refusal is why a swap can't work, told before anything is changed.
type Refusal struct {
	Reason string
	Fix    string // may be empty
}

// Error is the reason.
func (r *Refusal) Error() string { return r.Reason }

// Hint is what the user can do about it.
func (r *Refusal) Hint() string { return r.Fix }

// UsageError is a command line that can't be meant.
type UsageError struct{ Problem string }

// Error is the problem.
func (e *UsageError) Error() string { return e.Problem }

// Usage marks the error as the user's words' fault.
func (*UsageError) Usage() {}

// refuse finds what can't work.
func refuse(s Snapshot, r Request) error {
	if r.Operation == New {
		if err := refuseName(r.Target); err != nil {
			return err
		}
	}
	if err := refuseHeld(s, r); err != nil {
		return err
	}
	switch r.Operation {
	case Standing:
		if s.Standing == nil {
			return &Refusal{
				Reason: fmt.Sprintf("no pod of %s runs in namespace %s", r.Target, s.Namespace),
				Fix:    "apply the manifest in docs/standing-proxy.md, or let telepresence make a proxy: --new-deployment " + r.Target.Name,
			}
		}
		return refuseTaken(s, r)
	case New:
		if s.Taken != "" {
			return &Refusal{
				Reason: fmt.Sprintf("%s is in namespace %s already", s.Taken, s.Namespace),
				Fix:    "choose another name, or take the place of what runs there: --swap-deployment " + r.Target.Name,
			}
		}
	case Swap:
		if err := refuseTemplate(s.Workload.Template.Spec, r.Target); err != nil {
			return err
		}
		if err := refuseUnborn(s, r.Target); err != nil {
			return err
		}
	}
	return refuseAccount(s, r)
}

// refuseHeld refuses what somebody else's session is on.
func refuseHeld(s Snapshot, r Request) error {
	if s.Held == nil {
		return nil
	}
	since := s.Held.Since.UTC().Format(time.DateTime + " MST")
	if !s.Held.Alive {
		return &Refusal{
			Reason: fmt.Sprintf("%s is still held by the session of %s since %s, whose client is gone", r.Target, s.Held.Owner, since),
			Fix:    fmt.Sprintf("put back what it left: telepresence leave %s --namespace %s", r.Target.Flag(), s.Namespace),
		}
	}
	return &Refusal{
		Reason: fmt.Sprintf("%s is already swapped by %s since %s", r.Target, s.Held.Owner, since),
		Fix:    fmt.Sprintf("if that session is over: telepresence leave %s --namespace %s", r.Target.Flag(), s.Namespace),
	}
}

// refuseAccount refuses a service account that isn't there.
func refuseAccount(s Snapshot, r Request) error {
	if r.ServiceAccount == "" || s.ServiceAccounts == nil || slices.Contains(s.ServiceAccounts, r.ServiceAccount) {
		return nil
	}
	return &Refusal{
		Reason: fmt.Sprintf("there is no service account %q in namespace %s", r.ServiceAccount, s.Namespace),
		Fix:    "there are: " + list(s.ServiceAccounts),
	}
}

// refuseTaken refuses what a proxy that is running already can't be given.
func refuseTaken(s Snapshot, r Request) error {
	if account := s.Standing.Spec.ServiceAccountName; r.ServiceAccount != "" && r.ServiceAccount != account {
		return &Refusal{
			Reason: fmt.Sprintf("%s runs already, with service account %q", r.Target, account),
			Fix:    "leave --serviceaccount out, or change the deployment",
		}
	}
	return nil
}

// refuseUnborn refuses a StatefulSet that has no pods and never had any: the
// proxy would wait for claims that only its first pod brings.
func refuseUnborn(s Snapshot, t Target) error {
	w := s.Workload
	if w.Replicas > 0 || s.Claims == nil {
		return nil
	}
	for _, c := range w.VolumeClaimTemplates {
		name := fmt.Sprintf("%s-%s-%d", c.Name, w.Name, w.Ordinal)
		if !slices.ContainsFunc(s.Claims, func(c corev1.PersistentVolumeClaim) bool { return c.Name == name }) {
			return &Refusal{
				Reason: fmt.Sprintf("%s has no replicas, and its first pod's claim %s isn't there", t, name),
				Fix:    fmt.Sprintf("let it make it: kubectl --namespace %s scale %s --replicas 1", s.Namespace, t),
			}
		}
	}
	return nil
}

// Where the agent runs.
const (
	labelSystem = "kubernetes.io/os"
	labelArch   = "kubernetes.io/arch"
)

var architectures = []string{"amd64", "arm64"}

// refuseTemplate refuses pods in which no agent can run.
func refuseTemplate(spec corev1.PodSpec, t Target) error {
	systems := nodeValues(spec, labelSystem)
	if spec.OS != nil {
		systems = []string{string(spec.OS.Name)}
	}
	arches := nodeValues(spec, labelArch)
	switch {
	case len(spec.Containers) == 0:
		return &Refusal{Reason: fmt.Sprintf("%s has no containers", t)}
	case systems != nil && !slices.Contains(systems, "linux"):
		return &Refusal{Reason: fmt.Sprintf("%s runs on %s nodes, and the proxy is a Linux program", t, list(systems))}
	case arches != nil && !slices.ContainsFunc(arches, func(a string) bool { return slices.Contains(architectures, a) }):
		return &Refusal{Reason: fmt.Sprintf("%s runs on %s nodes, and the proxy is there for %s", t, list(arches), list(architectures))}
	}
	return nil
}

// nodeValues are the values of a node's label that the pod demands one of, or
// nil where it takes any.
func nodeValues(spec corev1.PodSpec, label string) []string {
	if value, ok := spec.NodeSelector[label]; ok {
		return []string{value}
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil || spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	var values []string
	for _, term := range spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		i := slices.IndexFunc(term.MatchExpressions, func(e corev1.NodeSelectorRequirement) bool {
			return e.Key == label && e.Operator == corev1.NodeSelectorOpIn
		})
		if i < 0 {
			return nil // one way to be scheduled is enough
		}
		values = append(values, term.MatchExpressions[i].Values...)
	}
	return values
}

// chooseContainer is the container that the target names, or the first.
func chooseContainer(spec corev1.PodSpec, t Target) (string, error) {
	if t.Container == "" {
		return spec.Containers[0].Name, nil
	}
	var names []string
	for _, c := range spec.Containers {
		if c.Name == t.Container {
			return c.Name, nil
		}
		names = append(names, c.Name)
	}
	for _, c := range spec.InitContainers {
		if c.Name == t.Container {
			return "", &Refusal{
				Reason: fmt.Sprintf("container %q of %s is an init container, which can't be swapped", t.Container, t),
				Fix:    "its containers are: " + list(names),
			}
		}
	}
	return "", &Refusal{
		Reason: fmt.Sprintf("%s has no container %q", t, t.Container),
		Fix:    "its containers are: " + list(names),
	}
}

// list is names for a sentence.
func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
