package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/session"
)

// exclusive lists options of which the command line may have one.
func exclusive() [][]string {
	return [][]string{
		{"new-deployment", "swap-deployment", "deployment"},
		{"run", "run-shell", "docker-run"},
		{"mount", "docker-mount"},
	}
}

// judge applies the rules between options. typed says which options stand on
// the command line; what comes from file and environment gives way to those.
func judge(s *settings, typed func(name string) bool) error {
	for _, group := range exclusive() {
		given := slices.DeleteFunc(slices.Clone(group), func(name string) bool { return !typed(name) })
		if len(given) > 1 {
			return usagef("--%s and --%s exclude each other", given[0], given[1])
		}
	}
	if err := judgeMethod(s, typed); err != nil {
		return err
	}
	if len(s.AsGroups) > 0 && s.As == "" {
		return usagef("--as-group needs --as")
	}
	return judgePorts(s)
}

// judgeMethod settles the method: the container method and --docker-run need
// each other.
func judgeMethod(s *settings, typed func(string) bool) error {
	docker := len(s.Docker) > 0
	switch {
	case docker && typed("method") && s.Method != session.MethodContainer:
		return usagef("--docker-run needs --method container, not %s", s.Method)
	case docker:
		s.Method = session.MethodContainer
	case s.Method == session.MethodContainer && typed("method"):
		return usagef("--method container needs --docker-run")
	case s.Method == session.MethodContainer:
		s.Method = session.MethodAuto // the file's default, for other sessions
	}
	if !docker {
		for _, name := range []string{"docker-mount", "container-to-host"} {
			if typed(name) {
				return usagef("--%s needs --docker-run", name)
			}
		}
		s.ContainerToHost = nil
	}
	if typed("docker-mount") {
		s.Mount = session.Mount{}
	}
	return nil
}

// judgePorts finds a port that is claimed twice, here or in the pod.
func judgePorts(s *settings) error {
	here, pod, container := claims{}, claims{}, claims{}
	for _, c := range []struct {
		option  string
		args    []string
		claimed []side
	}{
		{"expose", s.Expose, []side{{here, "port %d here", true}, {pod, "port %d of the pod", false}}},
		{"to-pod", s.ToPod, []side{{here, "port %d here", true}}},
		{"from-pod", s.FromPod, []side{{pod, "port %d of the pod", true}}},
		{"container-to-host", s.ContainerToHost, []side{{container, "port %d of the container", true}}},
	} {
		for _, arg := range c.args {
			p, err := plan.ParseExpose(arg)
			if err != nil {
				return err
			}
			for _, at := range c.claimed {
				if err := at.claim(p, "--"+c.option+" "+arg); err != nil {
					return err
				}
			}
		}
	}
	return judgeLoop(s)
}

// judgeLoop refuses a port that would be led to the pod and back.
func judgeLoop(s *settings) error {
	for _, p := range s.ToPod {
		if slices.Contains(s.FromPod, p) {
			return usagef("--to-pod %s and --from-pod %s would lead to each other", p, p)
		}
	}
	return nil
}

// claims are the ports of one place, each with the option that claimed it.
type claims map[plan.Port]string

// side is a place where an option claims the local or the remote port.
type side struct {
	ports claims
	name  string
	local bool
}

func (s side) claim(p plan.Expose, option string) error {
	port := p.Remote
	if s.local {
		port = p.Local
	}
	if before, ok := s.ports[port]; ok {
		return usagef("%s and %s both want %s", before, option, strings.TrimSpace(fmt.Sprintf(s.name, port)))
	}
	s.ports[port] = option
	return nil
}
