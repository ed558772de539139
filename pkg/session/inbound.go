package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// 1. watch    look, again and again, whether something listens on the local port
// 2. open     while it does, and only then, listen in the pod: a caller is
//             refused by the pod's kernel when nobody is here to answer
// 3. carry    each of the pod's connections to a new one to the local port

// How often the local port is looked at, and how many looks in a row must find
// nobody there before the pod's callers are refused: a server that restarts
// itself should not cost anybody a connection.
const (
	lookEvery = 100 * time.Millisecond
	goneAfter = 3
)

// podEnd is where the pod's traffic arrives: a tunnel.
type podEnd interface {
	Listen(ctx context.Context, at netip.AddrPort) (net.Listener, error)
}

// inbound brings the pod's traffic on some ports to the local process.
type inbound struct {
	pod   podEnd
	local localEnd
	ports []inboundPort
	ev    Events
	log   *slog.Logger
	conns sync.WaitGroup // run waits for them
	quiet atomic.Bool    // the session ends: nobody is told of ports any more

	mu      sync.Mutex // guards what follows
	open    map[inboundPort]bool
	changed chan struct{} // closed, and made anew, when open changes
}

// inboundPort is one port of the pod's and where it leads.
type inboundPort struct {
	at    netip.AddrPort // in the pod
	local plan.Port
}

// anyAddress is all the pod's addresses, of both families.
var anyAddress = netip.IPv6Unspecified()

// loopback is the address of --from-pod and --to-pod in the pod.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func newInbound(pod podEnd, local localEnd, ports []inboundPort, ev Events, log *slog.Logger) *inbound {
	return &inbound{
		pod: pod, local: local, ports: ports, ev: ev, log: log,
		open: make(map[inboundPort]bool), changed: make(chan struct{}),
	}
}

// run serves all ports until ctx ends, then cuts the connections that are open,
// and waits for them.
func (in *inbound) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range in.ports {
		group.Go(func() error { return in.serve(ctx, p) })
	}
	err := group.Wait()
	in.conns.Wait()
	return err
}

// allOpen waits until every port is served, and returns nil then, or ctx's
// error.
func (in *inbound) allOpen(ctx context.Context) error {
	for {
		all, changed := in.state()
		if all {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// missing are the local ports on which nobody listens.
func (in *inbound) missing() []plan.Port {
	in.mu.Lock()
	defer in.mu.Unlock()
	var ports []plan.Port
	for _, p := range in.ports {
		if !in.open[p] {
			ports = append(ports, p.local)
		}
	}
	return ports
}

// state tells whether all ports are open, and returns a channel that is closed
// when a port opens or closes.
func (in *inbound) state() (all bool, changed <-chan struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.open) == len(in.ports), in.changed
}

func (in *inbound) set(p inboundPort, open bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if open {
		in.open[p] = true
	} else {
		delete(in.open, p)
	}
	close(in.changed)
	in.changed = make(chan struct{})
}

// serve opens and closes one port as the local process does.
func (in *inbound) serve(ctx context.Context, p inboundPort) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	told := false
	for {
		if in.local.Listening(uint16(p.local)) {
			if told {
				in.ev.Tell(fmt.Sprintf("port %d is listened on again", p.local))
			}
			if err := in.serveWhileListening(ctx, p); err != nil || ctx.Err() != nil {
				return err
			}
			if !in.quiet.Load() {
				in.ev.Warn(fmt.Sprintf("nothing listens on 127.0.0.1:%d any more: callers of the pod's port %d are refused until something does", p.local, p.at.Port()))
				told = true
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// serveWhileListening listens in the pod until nobody listens here any more
// (nil) or ctx ends (nil).
func (in *inbound) serveWhileListening(ctx context.Context, p inboundPort) error {
	listener, err := in.pod.Listen(ctx, p.at)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("listening on port %d in the pod: %w", p.at.Port(), err)
	}
	in.log.Info("port open", "pod", p.at, "local", p.local)
	in.set(p, true)
	defer in.set(p, false)
	var accepting sync.WaitGroup
	defer accepting.Wait()
	accepting.Go(func() { in.accept(ctx, listener, p) })
	in.untilGone(ctx, p.local)
	if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		in.log.Debug("closing a port", "pod", p.at, "err", err)
	}
	return nil
}

// untilGone returns when nobody listens on the port any more, or ctx ends.
func (in *inbound) untilGone(ctx context.Context, port plan.Port) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for missed := 0; missed < goneAfter; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if in.local.Listening(uint16(port)) {
			missed = 0
		} else {
			missed++
		}
	}
}

// accept carries each connection of the listener's, until it is closed. The
// connections outlive it: a server that shuts down in order has stopped
// listening and still answers.
func (in *inbound) accept(ctx context.Context, listener net.Listener, p inboundPort) {
	for {
		caller, err := listener.Accept()
		if err != nil {
			return
		}
		in.conns.Go(func() { in.carry(ctx, caller, p) })
	}
}

func (in *inbound) carry(ctx context.Context, caller net.Conn, p inboundPort) {
	local, err := in.local.Dial(ctx, uint16(p.local))
	if err != nil {
		in.log.Info("a caller was turned away", "port", p.local, "caller", caller.RemoteAddr(), "err", err)
		reset(caller)
		return
	}
	relayUntil(ctx, caller, local)
}

// relayUntil is relay, cut short when ctx ends.
func relayUntil(ctx context.Context, a, b net.Conn) {
	done := make(chan struct{})
	var cut sync.WaitGroup
	cut.Go(func() {
		select {
		case <-ctx.Done():
			reset(a)
			reset(b)
		case <-done:
		}
	})
	relay(a, b)
	close(done)
	cut.Wait()
}

// inboundPorts are the plan's exposed ports, listened on at an address.
func inboundPorts(at netip.Addr, exposed ...plan.Expose) []inboundPort {
	ports := make([]inboundPort, len(exposed))
	for i, e := range exposed {
		ports[i] = inboundPort{at: netip.AddrPortFrom(at, uint16(e.Remote)), local: e.Local}
	}
	return ports
}

// fromPodPorts are --from-pod's: the same number at both ends, and at the pod's
// loopback only.
func fromPodPorts(list []plan.Port) []inboundPort {
	exposed := make([]plan.Expose, len(list))
	for i, p := range list {
		exposed[i] = plan.Expose{Local: p, Remote: p}
	}
	return inboundPorts(loopback, exposed...)
}
