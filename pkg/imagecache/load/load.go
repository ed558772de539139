// Package load puts an image into the nodes of a cluster on the user's machine,
// as the tool does that made the cluster. It needs no registry.
package load

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// How long one program may take to load an image.
const patience = 5 * time.Minute

// Step is one program that loads an archive.
type Step struct {
	Into  string // what the image is in then: a node, or all nodes that share a store
	Args  []string
	Stdin bool // the archive is the program's input; otherwise the arguments name it
}

// Plan says how an archive comes into each of a cluster's nodes. Its error is an
// *UnknownError for a node that is in no kind of local cluster.
func Plan(nodes []corev1.Node, archive string) ([]Step, error) {
	var steps []Step
	has := make(map[string]bool)
	for _, n := range nodes {
		s, ok := stepFor(n, archive)
		if !ok {
			return nil, &UnknownError{Node: n.Name, Provider: n.Spec.ProviderID}
		}
		if !has[s.Into] {
			has[s.Into] = true
			steps = append(steps, s)
		}
	}
	return steps, nil
}

// stepFor is how an archive comes into one node.
func stepFor(n corev1.Node, archive string) (Step, bool) {
	provider, rest, _ := strings.Cut(n.Spec.ProviderID, "://")
	engine, _, _ := strings.Cut(rest, "/")
	profile := n.Labels["minikube.k8s.io/name"]
	switch {
	case profile != "":
		return Step{Into: "minikube " + profile, Args: []string{"minikube", "--profile", profile, "image", "load", archive}}, true
	case n.Name == "docker-desktop", strings.HasPrefix(n.Spec.ProviderID, "kind://docker/desktop/"):
		// Its nodes run what docker has.
		return Step{Into: "Docker Desktop", Args: []string{"docker", "load", "--quiet", "--input", archive}}, true
	case provider == "kind" && (engine == "docker" || engine == "podman" || engine == "nerdctl"):
		return inContainer(engine, n.Name), true
	case provider == "k3s" && rest == n.Name && strings.HasPrefix(n.Name, "k3d-"):
		return inContainer("docker", n.Name), true
	}
	return Step{}, false
}

// inContainer is for a node that is a container, with a containerd in it.
func inContainer(engine, node string) Step {
	return Step{
		Into: "node " + node, Stdin: true,
		Args: []string{engine, "exec", "--interactive", node, "ctr", "--namespace", "k8s.io", "images", "import", "-"},
	}
}

// With is the step of a command that the user has for it: the archive's path
// goes behind its words.
func With(command, archive string) Step {
	return Step{Into: "the cluster", Args: append(strings.Fields(command), archive)}
}

// UnknownError says that it isn't known how to load an image into a node.
type UnknownError struct{ Node, Provider string }

// Error names the node.
func (e *UnknownError) Error() string {
	of := ""
	if e.Provider != "" {
		of = " (" + e.Provider + ")"
	}
	return "node " + e.Node + of + " is not of kind, k3d, minikube or Docker Desktop, whose nodes an image can be loaded into"
}

// Hint is the way out.
func (*UnknownError) Hint() string {
	return "--load-with COMMAND loads it by a command of yours; --image names it in a registry"
}

// Run takes the steps, one after the other: they share the machine. tell gets
// what is waited for.
func Run(ctx context.Context, steps []Step, archive string, tell func(string)) error {
	for _, s := range steps {
		tell("loading the image into " + s.Into)
		if err := s.run(ctx, archive); err != nil {
			return fmt.Errorf("loading the image into %s: %w", s.Into, err)
		}
	}
	return nil
}

func (s Step) run(ctx context.Context, archive string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Args[0], s.Args[1:]...)
	cmd.WaitDelay = time.Second // its children may hold the pipe that it leaves
	if s.Stdin {
		file, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer file.Close()
		cmd.Stdin = file
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(s.Args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
