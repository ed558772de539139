package session

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// readOptions says in the plan's words what the options ask for. It reads
// nothing but the options, so that what is wrong with them is told before
// anything is touched.
func (s *session) readOptions() error {
	id, err := newSessionID()
	if err != nil {
		return err
	}
	s.request = plan.Request{
		ServiceAccount: s.o.ServiceAccount,
		Session:        id,
		Owner:          owner(),
		Now:            time.Now().UTC().Truncate(time.Second),
		AgentImage:     s.o.AgentImage,
		Grace:          s.o.Grace,
	}
	if s.request.Operation, s.request.Target, err = target(s.o, id); err != nil {
		return err
	}
	for _, text := range s.o.Expose {
		e, err := plan.ParseExpose(text)
		if err != nil {
			return fmt.Errorf("--expose: %w", err)
		}
		s.request.Expose = append(s.request.Expose, e)
	}
	if s.toPod, err = ports("--to-pod", s.o.ToPod); err != nil {
		return err
	}
	if s.fromPod, err = ports("--from-pod", s.o.FromPod); err != nil {
		return err
	}
	s.request.ToPod, s.request.FromPod = s.toPod, s.fromPod
	return nil
}

// target is which of the three operations is asked for, and on what.
func target(o Options, id plan.SessionID) (plan.Operation, plan.Target, error) {
	var (
		op   plan.Operation
		flag string
		name string
	)
	switch {
	case o.Swap != "":
		op, flag, name = plan.Swap, "--swap-deployment", o.Swap
	case o.Standing != "":
		op, flag, name = plan.Standing, "--deployment", o.Standing
	case o.New != "":
		op, flag, name = plan.New, "--new-deployment", o.New
	default:
		return plan.New, plan.Target{Name: "telepresence-" + string(id)}, nil
	}
	t, err := plan.ParseTarget(name)
	if err != nil {
		return op, t, fmt.Errorf("%s: %w", flag, err)
	}
	return op, t, nil
}

func ports(flag string, texts []string) ([]plan.Port, error) {
	var list []plan.Port
	for _, text := range texts {
		p, err := plan.ParsePort(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		list = append(list, p)
	}
	return list, nil
}

// newSessionID makes an id that fits names and labels: 32 bits are plenty for
// the sessions of one namespace, and short enough to be read aloud.
func newSessionID() (plan.SessionID, error) {
	id := make([]byte, 4)
	if _, err := rand.Read(id); err != nil {
		return "", fmt.Errorf("making a session's id: %w", err)
	}
	return plan.SessionID(hex.EncodeToString(id)), nil
}

// owner is who runs the session, as others are to read it: user@host.
func owner() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if sudo := os.Getenv("SUDO_USER"); name == "root" && sudo != "" {
		name = sudo
	}
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + strings.TrimSuffix(host, ".")
}
