package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// StandingPort is where the agent of a standing proxy listens unless its
// container's command says otherwise.
const StandingPort Port = 24817

// standingContainer is the container of a standing proxy that runs the agent,
// which it was told to go on without a client.
func standingContainer(pod *corev1.Pod, t Target) (string, error) {
	var names []string
	for _, c := range pod.Spec.Containers {
		if slices.ContainsFunc(words(c), func(w string) bool { return w == "--standing" || w == "--standing=true" }) {
			names = append(names, c.Name)
		}
	}
	switch {
	case len(names) == 0:
		return "", &Refusal{
			Reason: fmt.Sprintf("pod %s is no standing proxy: no container of it runs telepresence-agent serve --standing", pod.Name),
			Fix:    "docs/standing-proxy.md has what to apply; to take the place of what runs there: --swap-deployment " + t.Flag(),
		}
	case t.Container == "":
		return names[0], nil
	case !slices.Contains(names, t.Container):
		return "", &Refusal{
			Reason: fmt.Sprintf("container %q of %s doesn't run telepresence-agent serve --standing", t.Container, t),
			Fix:    "what does: " + list(names),
		}
	}
	return t.Container, nil
}

// standingPort is the port in the command of a standing proxy's container, as
// --port=N or --port N.
func standingPort(c *corev1.Container) Port {
	all := words(*c)
	for i, word := range all {
		text, ok := strings.CutPrefix(word, "--port=")
		if !ok && word == "--port" && i+1 < len(all) {
			text = all[i+1]
		}
		if port, err := ParsePort(text); err == nil && text != word {
			return port
		}
	}
	return StandingPort
}

// words are a container's command line, without what its image says.
func words(c corev1.Container) []string { return slices.Concat(c.Command, c.Args) }
