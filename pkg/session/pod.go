package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// readPod learns from the agent what the container has, and writes the files
// that the user asked for, before the process starts: who has none uses them.
func (s *session) readPod(ctx context.Context) error {
	var err error
	if s.pod, err = s.tunnel.PodInfo(ctx); err != nil {
		return fmt.Errorf("asking the agent what the pod has: %w", err)
	}
	s.noteVersions()
	if len(s.pod.ImageEnviron) > 0 {
		s.imageEnviron = s.pod.ImageEnviron
	}
	s.environ = podEnviron(s.pod.Environ, s.imageEnviron)
	if s.o.EnvJSON != "" {
		text, err := envJSONText(s.environ)
		if err != nil {
			return err
		}
		if err := writePrivate(s.o.EnvJSON, text); err != nil {
			return err
		}
	}
	if s.o.EnvFile == "" {
		return nil
	}
	text, unfit := envFileText(s.environ)
	if len(unfit) > 0 {
		s.ev.Warn(fmt.Sprintf("%s can't hold %s: a value has a line break there (--env-json can)", s.o.EnvFile, strings.Join(unfit, ", ")))
	}
	return writePrivate(s.o.EnvFile, text)
}

// telepresenceVariables are the variables by which the process knows that, and as
// what, it stands in for a container.
func (s *session) telepresenceVariables(root string) map[string]string {
	var mounts []string
	for _, m := range s.pod.Mounts {
		mounts = append(mounts, m.Path)
	}
	slices.Sort(mounts)
	env := map[string]string{
		"TELEPRESENCE_POD":                 s.podName(),
		"TELEPRESENCE_CONTAINER":           s.plan.Container,
		"TELEPRESENCE_CONTAINER_NAMESPACE": s.plan.Namespace,
		"TELEPRESENCE_MOUNTS":              strings.Join(mounts, ":"),
		"TELEPRESENCE_AGENT_VERSION":       s.pod.Version,
	}
	if root != "" {
		env["TELEPRESENCE_ROOT"] = root
	}
	return env
}

// processEnviron is all that the process's environment gets from the pod.
func (s *session) processEnviron(root string) map[string]string {
	env := maps.Clone(s.environ)
	maps.Copy(env, s.telepresenceVariables(root))
	return env
}
