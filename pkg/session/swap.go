package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/telepresence/telepresence/pkg/k8s"
	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/proxy"
)

// connect finds the cluster and asks whether it is there.
func (s *session) connect(ctx context.Context) error {
	cluster, err := k8s.Connect(k8s.Config{
		Context: s.o.Context, Namespace: s.o.Namespace, As: s.o.As, AsGroups: s.o.AsGroups,
	})
	if err != nil {
		return err
	}
	s.cluster = cluster
	return cluster.Check(ctx)
}

// makePlan reads what the plan needs, and makes it. What a session that is gone
// has left on the workload is put back first.
func (s *session) makePlan(ctx context.Context) error {
	var err error
	if s.keys, err = proxy.NewKeys(); err != nil {
		return err
	}
	s.request.Keys = plan.Keys{HostKey: s.keys.HostKey, ClientPublic: s.keys.ClientPublic, Token: s.keys.Token}
	s.useImageCache(ctx)
	snapshot, err := s.cluster.Snapshot(ctx, s.request)
	if err != nil {
		return err
	}
	if held := snapshot.Held; held != nil && !held.Alive && !s.o.DryRun {
		s.ev.Tell(fmt.Sprintf("the session of %s since %s is gone: putting back what it left", held.Owner, held.Since.Local().Format(time.DateTime)))
		if err := s.restoreGone(ctx, held.Session); err != nil {
			return err
		}
		if snapshot, err = s.cluster.Snapshot(ctx, s.request); err != nil {
			return err
		}
	}
	if s.plan, err = plan.Make(snapshot, s.request); err != nil {
		return err
	}
	if s.mustReadImage(ctx) {
		s.request.ReadImage = true
		if s.plan, err = plan.Make(snapshot, s.request); err != nil {
			return err
		}
	}
	for _, w := range s.plan.Warnings {
		s.ev.Warn(w)
	}
	return nil
}

// mustReadImage asks an original what its image sets. It says whether the proxy
// pod has to find out, since the original can't be asked. With any other trouble
// the session goes on: most images set nothing that matters here.
func (s *session) mustReadImage(ctx context.Context) bool {
	if s.plan.Operation != plan.Swap || s.o.DryRun {
		return false
	}
	var err error
	if s.imageEnviron, err = s.cluster.ImageEnviron(ctx, s.plan); err != nil {
		s.o.Log.Info("asking an original for its environment", "err", err)
	}
	return errors.Is(err, k8s.ErrCannotAsk)
}

// restoreGone puts back what a session has left whose client is gone.
func (s *session) restoreGone(ctx context.Context, id plan.SessionID) error {
	sessions, err := s.cluster.Sessions(ctx, false)
	if err != nil {
		return err
	}
	for _, gone := range sessions {
		if gone.ID != string(id) {
			continue
		}
		if gone.Problem != "" {
			return fmt.Errorf("restoring %s: %s", gone.Workload, gone.Problem)
		}
		return s.cluster.Restore(ctx, gone.Record, s.ev.Waiting)
	}
	return nil // somebody else has put it back meanwhile
}

// printPlan is all that --dry-run does.
func (s *session) printPlan(context.Context) error {
	text, err := s.plan.YAML()
	if err != nil {
		return err
	}
	if _, err := s.o.Stdout.Write(text); err != nil {
		return fmt.Errorf("printing the plan: %w", err)
	}
	return nil
}

// try asks the cluster whether it would let the plan happen.
func (s *session) try(ctx context.Context) error { return s.cluster.Try(ctx, s.plan) }

// hold writes into the cluster what puts everything back, before anything is
// changed, and keeps it known that its owner is there.
func (s *session) hold(ctx context.Context) error {
	if err := s.cluster.Hold(ctx, s.plan); err != nil {
		return err
	}
	s.held = true
	s.stopRenewal = s.tasks.begin(ctx, "the session's lease", func(ctx context.Context) error {
		return s.cluster.Renew(ctx, s.plan)
	})
	return nil
}

// startProxy puts the proxy pod in place, or hands the session's keys to one that
// is there.
func (s *session) startProxy(ctx context.Context) error {
	if s.plan.Operation == plan.Standing {
		return s.enroll(ctx)
	}
	if s.plan.OriginalsFirst {
		s.ev.Tell(s.plan.Reason + ": the originals go first")
		if err := s.cluster.TakeDown(ctx, s.plan, s.ev.Waiting); err != nil {
			return err
		}
	}
	s.ev.Tell("starting proxy pod " + s.podName())
	if s.request.AgentImage != s.o.AgentImage {
		return s.cluster.StartCached(ctx, s.plan, s.o.AgentImage, s.ev.Waiting, s.ev.Warn)
	}
	return s.cluster.StartProxy(ctx, s.plan, s.ev.Waiting)
}

// How long a standing proxy may take to let go of the session before.
const freeWithin = 15 * time.Second

// enroll makes the standing proxy serve this session: it knows nobody's keys until
// somebody who may run a program in its container hands them over.
func (s *session) enroll(ctx context.Context) error {
	s.ev.Tell("using proxy pod " + s.podName())
	command := []string{"/telepresence-agent", "enroll", fmt.Sprintf("--port=%d", s.plan.AgentPort)}
	message := proxy.EnrollMessage(s.keys, s.request.Owner)
	for until := time.Now().Add(freeWithin); ; {
		_, err := s.cluster.Exec(ctx, s.podName(), s.plan.Container, command, bytes.NewReader(message))
		if err == nil {
			return nil
		}
		// Nobody else has a session on it, or the record would have been refused:
		// the agent has yet to see that the one before is over.
		if !strings.Contains(err.Error(), "uses this proxy") || time.Now().After(until) {
			return fmt.Errorf("handing the session's keys to proxy pod %s: %w", s.podName(), err)
		}
		s.ev.Waiting("the proxy ends the session before")
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bringBack has the originals serve again while the proxy still does, and takes
// the proxy out of the services then, before its tunnel is closed.
func (s *session) bringBack(ctx context.Context) error {
	if s.plan.OriginalsFirst {
		return nil // not both at once: restore does it, when the tunnel is closed
	}
	if s.plan.Workload != nil {
		s.ev.Tell(fmt.Sprintf("bringing %s back", s.request.Target))
		switch err := s.cluster.BringBack(ctx, s.plan.Record, s.ev.Waiting); {
		case errors.Is(err, k8s.ErrNotReady):
			s.ev.Warn(err.Error())
		case err != nil:
			return err
		default:
			s.ev.Tell(fmt.Sprintf("%s serves again", s.request.Target))
		}
	}
	s.stopRenewal()
	err := s.cluster.Remove(ctx, s.plan.Record)
	s.removed = err == nil
	return err
}

// restore puts back whatever isn't yet, and takes the record of it away last.
func (s *session) restore(ctx context.Context) error {
	if !s.held {
		return nil
	}
	defer s.stopRenewal()
	if s.removed {
		return s.cluster.AwaitGone(ctx, s.plan.Record, s.ev.Waiting)
	}
	if s.plan.OriginalsFirst {
		s.ev.Tell(fmt.Sprintf("bringing %s back", s.request.Target))
	}
	err := s.cluster.Restore(ctx, s.plan.Record, s.ev.Waiting)
	if err == nil && s.plan.OriginalsFirst {
		s.ev.Tell(fmt.Sprintf("%s serves again", s.request.Target))
	}
	return err
}

// podName is the proxy pod's.
func (s *session) podName() string { return s.plan.Pod.Name }
