// Package session carries out a session: it plans a proxy, puts it in place,
// runs the user's process as if it were in the pod, and puts everything back.
package session

import (
	"context"
	"sync"

	"github.com/telepresence/telepresence/pkg/k8s"
	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/proxy"
)

// Run carries a session out and returns the exit code of the user's process,
// or an error if telepresence itself could not do its part. When ctx ends, the
// process is ended, everything is put back, and the code is 0. An error that
// has a method Usage is about the options; one with a method Hint knows a way
// out.
func Run(ctx context.Context, o Options, ev Events) (int, error) {
	s := &session{o: o, ev: ev, tasks: newTasks()}
	if err := s.readOptions(); err != nil {
		return 0, err
	}
	err := through(ctx, s.steps())
	return s.code, err
}

// steps is the way of a session. Undone in reverse order, the originals serve
// again before the process and the tunnel end, and the record of how to put
// things back goes last.
func (s *session) steps() []step {
	if s.o.DryRun {
		return []step{
			{"cluster", s.connect, nil},
			{"plan", s.makePlan, nil},
			{"print", s.printPlan, nil},
			{"trial", s.try, nil}, // after it: the plan is what shows why the server refuses it
		}
	}
	return []step{
		{"cluster", s.connect, nil},
		{"plan", s.makePlan, nil},
		{"place", s.choosePlace, nil}, // what this machine must offer is asked before the cluster is changed
		{"trial", s.try, nil},         // and the cluster, whether it would let the change happen
		{"record", s.hold, s.restore}, // what puts everything back is in the cluster from here on
		{"proxy", s.startProxy, nil},  // undone by the record's
		{"tunnel", s.openTunnel, s.closeTunnel},
		{"pod", s.readPod, nil}, // environment, names, mounts
		{"files", s.mountFiles, s.unmountFiles},
		{"inside", s.openPlace, s.closePlace},
		{"outbound", s.intercept, s.stopIntercepting},
		{"process", s.startProcess, s.endProcess},
		{"inbound", s.serve, s.stopServing},
		{"take over", nil, s.bringBack}, // done in live, beside the process
		{"live", s.live, nil},
	}
}

// session is the state that the steps hand on to each other. Each field is
// written by the step that is named beside it, before the steps after it begin.
type session struct {
	o       Options
	ev      Events
	tasks   *tasks
	waiting sync.WaitGroup // closePlace, and who begins something else, wait for it

	request      plan.Request      // readOptions
	toPod        []plan.Port       // readOptions
	fromPod      []plan.Port       // readOptions
	cluster      *k8s.Cluster      // connect
	keys         proxy.Keys        // makePlan
	plan         *plan.Plan        // makePlan
	place        place             // choosePlace
	held         bool              // hold
	stopRenewal  func()            // hold
	removed      bool              // bringBack, as the session ends: all is put back but the proxy's last moments
	imageEnviron []string          // makePlan, readPod: what the original's image sets
	tunnel       *proxy.Client     // openTunnel
	stopWatch    func()            // openTunnel
	pod          proxy.PodInfo     // readPod
	environ      map[string]string // readPod: the container's
	files        *podFiles         // mountFiles
	room         room              // openPlace
	stopEngine   func()            // intercept
	exited       chan exit         // startProcess
	inbound      *inbound          // serve
	stopInbound  []func()          // serve
	code         int               // live: the process's own
}
