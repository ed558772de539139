package session

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// serviceAccountDir is the volume that no template shows: the API server adds it.
const serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// checkProgram refuses a program that can't be there when it is to start. The
// command line that names it is wrong, and better told so before anything is
// changed: a process that never ran has no exit code of its own.
func (s *session) checkProgram() error {
	if len(s.o.Command) == 0 {
		return nil
	}
	foreign := []string{s.o.Mount.Path, serviceAccountDir}
	for i := range s.plan.Pod.Spec.Containers {
		if c := &s.plan.Pod.Spec.Containers[i]; c.Name == s.plan.Container {
			for _, m := range c.VolumeMounts {
				foreign = append(foreign, m.MountPath)
			}
		}
	}
	return findProgram(s.o.Command[0], variables(s.o.Environ)["PATH"], foreign)
}

// findProgram finds a program as a shell does. What may lie below one of the
// foreign folders, which are the pod's, is known only when they are there.
func findProgram(name, path string, foreign []string) error {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, dir := range filepath.SplitList(path) {
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	reason := errors.New("there is no such program in any folder of PATH")
	for _, candidate := range candidates {
		absolute, err := filepath.Abs(candidate)
		if err != nil || below(absolute, foreign) {
			return nil // found out when it starts
		}
		_, err = exec.LookPath(absolute)
		if err == nil {
			return nil
		}
		var pathErr *fs.PathError
		switch {
		case errors.As(err, &pathErr):
			err = pathErr.Err
		case errors.Unwrap(err) != nil:
			err = errors.Unwrap(err)
		}
		if candidate == name || errors.Is(err, fs.ErrPermission) {
			reason = err
		}
	}
	return &plan.UsageError{Problem: fmt.Sprintf("--run %s: %v", name, reason)}
}

// below tells whether a path is one of the folders or lies in it.
func below(path string, folders []string) bool {
	for _, f := range folders {
		if f != "" && (path == f || strings.HasPrefix(path, strings.TrimSuffix(f, "/")+"/")) {
			return true
		}
	}
	return false
}
