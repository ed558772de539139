package session

import (
	"errors"
	"fmt"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/proxy"
)

// noteVersions says where the agent is of another version than this program:
// the two understand each other, but nobody has tried them together.
func (s *session) noteVersions() {
	if s.pod.Version == s.o.Version {
		return
	}
	text := fmt.Sprintf("the agent in proxy pod %s is version %s, this telepresence is version %s", s.podName(), s.pod.Version, s.o.Version)
	if s.plan.Operation == plan.Standing {
		text += ": let that pod run image " + s.o.AgentImage
	} else {
		text += ": TELEPRESENCE_VERSION should name this one, or not be set"
	}
	s.ev.Warn(text)
}

// versionError is an agent that this program can't talk to.
type versionError struct {
	pod, image string
	standing   bool
	cause      *proxy.VersionError
}

// tunnelError explains why the tunnel can't be opened.
func (s *session) tunnelError(err error) error {
	var cause *proxy.VersionError
	if !errors.As(err, &cause) {
		return fmt.Errorf("connecting to proxy pod %s: %w", s.podName(), err)
	}
	return &versionError{s.podName(), s.o.AgentImage, s.plan.Operation == plan.Standing, cause}
}

// Error says which is the older.
func (e *versionError) Error() string {
	if e.cause.Newer() {
		return fmt.Sprintf("this telepresence is too old for the agent in proxy pod %s: %v", e.pod, e.cause)
	}
	return fmt.Sprintf("the agent in proxy pod %s is too old for this telepresence: %v", e.pod, e.cause)
}

// Unwrap returns the tunnel's own words.
func (e *versionError) Unwrap() error { return e.cause }

// Hint says which to upgrade.
func (e *versionError) Hint() string {
	switch {
	case e.cause.Newer() && e.standing:
		return "upgrade telepresence here, to the version of the image that the pod runs"
	case e.cause.Newer():
		return "upgrade telepresence here, or unset TELEPRESENCE_VERSION"
	case e.standing:
		return "let that pod run image " + e.image
	}
	return "let TELEPRESENCE_VERSION name this version, or unset it"
}
