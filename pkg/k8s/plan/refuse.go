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
	if err := refuseHeld(s, r); err != nil {
		return err
	}
	if name := r.ServiceAccount; name != "" && s.ServiceAccounts != nil && !slices.Contains(s.ServiceAccounts, name) {
		return &Refusal{
			Reason: fmt.Sprintf("there is no service account %q in namespace %s", name, s.Namespace),
			Fix:    "there are: " + list(s.ServiceAccounts),
		}
	}
	switch r.Operation {
	case Standing:
		if s.Standing == nil {
			return &Refusal{
				Reason: fmt.Sprintf("no pod of %s runs in namespace %s", r.Target, s.Namespace),
				Fix:    "apply the manifest in docs/standing-proxy.md, or let telepresence make a proxy: --new-deployment " + r.Target.Name,
			}
		}
		return nil
	case New:
		if s.Taken != "" {
			return &Refusal{
				Reason: fmt.Sprintf("%s is in namespace %s already", s.Taken, s.Namespace),
				Fix:    "choose another name, or take the place of what runs there: --swap-deployment " + r.Target.Name,
			}
		}
		return nil
	case Swap:
	}
	return refuseTemplate(s.Workload.Template.Spec, r.Target)
}

// refuseHeld refuses what somebody else's session is on.
func refuseHeld(s Snapshot, r Request) error {
	if s.Held == nil {
		return nil
	}
	return &Refusal{
		Reason: fmt.Sprintf("%s is already swapped by %s since %s", r.Target, s.Held.Owner, s.Held.Since.UTC().Format(time.DateTime+" MST")),
		Fix:    fmt.Sprintf("if that session is over: telepresence leave %s --namespace %s", r.Target, s.Namespace),
	}
}

// refuseTemplate refuses pods in which no agent can run.
func refuseTemplate(spec corev1.PodSpec, t Target) error {
	windows := spec.OS != nil && spec.OS.Name == corev1.Windows || spec.NodeSelector["kubernetes.io/os"] == "windows"
	if windows {
		return &Refusal{Reason: fmt.Sprintf("%s runs on Windows nodes, and the proxy is a Linux program", t)}
	}
	if len(spec.Containers) == 0 {
		return &Refusal{Reason: fmt.Sprintf("%s has no containers", t)}
	}
	return nil
}

// chooseContainer is the container that the target names, or the first.
func chooseContainer(spec corev1.PodSpec, t Target) (string, error) {
	if t.Container == "" {
		if len(spec.Containers) == 0 {
			return "", &Refusal{Reason: fmt.Sprintf("%s has no containers", t)}
		}
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
