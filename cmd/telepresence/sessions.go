package main

import (
	"fmt"
	"strings"

	"github.com/telepresence/telepresence/pkg/k8s"
)

// choose finds the sessions that a name means: a workload's with or without its
// kind, or a session's id. The empty name means all.
func choose(sessions []k8s.Session, name string) []k8s.Session {
	var chosen []k8s.Session
	for _, s := range sessions {
		_, bare, _ := strings.Cut(s.Workload, "/")
		if name == "" || name == s.Workload || name == bare || name == s.ID {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// absentError is a session that isn't there.
type absentError struct {
	name, namespace string
	sessions        []k8s.Session
}

// Error says what isn't there.
func (e *absentError) Error() string {
	return fmt.Sprintf("there is no session on %s in namespace %s", e.name, e.namespace)
}

// Hint names what is there.
func (e *absentError) Hint() string {
	if len(e.sessions) == 0 {
		return "there is none in this namespace; telepresence list --all-namespaces looks further"
	}
	var names []string
	for _, s := range e.sessions {
		names = append(names, s.Workload)
	}
	return "there are sessions on " + strings.Join(names, ", ")
}
