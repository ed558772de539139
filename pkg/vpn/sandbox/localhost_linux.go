package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// localhostInterval is how soon a listener shows on the other side.
const localhostInterval = 200 * time.Millisecond

// followLocalhost joins the localhost of the sandbox with the machine's, until
// ctx ends.
func (s *Sandbox) followLocalhost(ctx context.Context, relays []net.Listener) {
	var p pipes
	defer p.close()
	for _, l := range relays {
		p.accept(l, func(c net.Conn) { s.toHost(ctx, &p, c) })
	}
	file, err := diagSocket()
	if err != nil {
		s.log.Warn("the localhost of the process stays apart from the machine's", "error", err)
		<-ctx.Done()
		return
	}
	defer func() { _ = file.Close() }()
	l := &localhost{sandbox: s, host: &diag{file: file}, pipes: &p, relayed: len(relays) > 0,
		mirrors: map[netip.AddrPort]net.Listener{}, told: map[uint16]bool{}}
	tick := time.NewTicker(localhostInterval)
	defer tick.Stop()
	for {
		if err := l.update(ctx); err != nil {
			s.log.Debug("joining localhost with the machine's", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// localhost is the state of followLocalhost.
type localhost struct {
	sandbox *Sandbox
	host    *diag
	pipes   *pipes
	relayed bool // the machine's ports can be reached
	mirrors map[netip.AddrPort]net.Listener
	told    map[uint16]bool // that the port is taken
	shown   hostPorts       // what the keeper knows
}

// update looks at the listeners of both sides once.
func (l *localhost) update(ctx context.Context) error {
	inside, err := l.sandbox.inside.listeners()
	if err != nil {
		return err
	}
	l.mirror(ctx, inside)
	if !l.relayed {
		return nil
	}
	host, err := l.host.listeners()
	if err != nil {
		return err
	}
	ports := l.hostPorts(host)
	if slices.Equal(ports.V4, l.shown.V4) && slices.Equal(ports.V6, l.shown.V6) {
		return nil
	}
	if _, _, err := l.sandbox.wire.call(request{Op: opHost, Host: ports}, time.Now().Add(callPatience)); err != nil {
		return err
	}
	l.shown = ports
	return nil
}

// ours says whether a port on the sandbox's localhost is telepresence's.
func (s *Sandbox) ours(port uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[port]
}

// mirror lets the machine's localhost listen where the process does.
func (l *localhost) mirror(ctx context.Context, inside []listener) {
	want := map[netip.AddrPort]bool{}
	for _, i := range inside {
		port := i.addr.Port()
		if l.sandbox.ours(port) {
			continue
		}
		want[netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)] = true
		want[netip.AddrPortFrom(netip.IPv6Loopback(), port)] = true
	}
	for at, listener := range l.mirrors {
		if !want[at] {
			_ = listener.Close()
			delete(l.mirrors, at)
		}
	}
	var config net.ListenConfig
	for at := range want {
		if l.mirrors[at] != nil {
			continue
		}
		listener, err := config.Listen(ctx, "tcp", at.String())
		if err != nil {
			l.taken(at, err)
			continue
		}
		l.sandbox.log.Debug("the machine's localhost listens for the process", "address", at)
		l.mirrors[at] = listener
		l.pipes.accept(listener, func(c net.Conn) { l.toProcess(ctx, c, at.Port()) })
	}
}

// taken tells, once, of a port that the machine's localhost can't have.
func (l *localhost) taken(at netip.AddrPort, err error) {
	if at.Addr().Is6() || l.told[at.Port()] {
		return
	}
	l.told[at.Port()] = true
	why := "something else listens there"
	if !errors.Is(err, syscall.EADDRINUSE) {
		why = err.Error()
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			why = op.Err.Error()
		}
	}
	line := fmt.Sprintf("port %d of the process can't be reached at this machine's %s: %s", at.Port(), at, why)
	l.sandbox.log.Info(line)
	if l.sandbox.cfg.Tell != nil {
		l.sandbox.cfg.Tell(line)
	}
}

// hostPorts are the ports that the process may reach at the machine's localhost.
func (l *localhost) hostPorts(host []listener) hostPorts {
	var p hostPorts
	for _, h := range host {
		if slices.Contains(l.sandbox.cfg.PodPorts, h.addr.Port()) || l.sandbox.ours(h.addr.Port()) {
			continue
		}
		for v6, list := range map[bool]*[]uint16{false: &p.V4, true: &p.V6} {
			if at, ok := h.reaches(v6); ok && l.mirrors[at] == nil {
				*list = append(*list, at.Port())
			}
		}
	}
	slices.Sort(p.V4)
	slices.Sort(p.V6)
	p.V4, p.V6 = slices.Compact(p.V4), slices.Compact(p.V6)
	return p
}

// toProcess carries a connection to the machine's localhost to the process.
func (l *localhost) toProcess(ctx context.Context, c net.Conn, port uint16) {
	to, err := l.sandbox.Dial(ctx, port)
	if err != nil {
		l.sandbox.log.Debug("carrying a connection to the process", "port", port, "error", err)
		reset(c)
		return
	}
	l.pipes.join(c, to)
}

// toHost carries a connection of the process to the machine's localhost. Should
// the process listen on that port meanwhile, it is the process that gets it.
func (s *Sandbox) toHost(ctx context.Context, p *pipes, c net.Conn) {
	at := c.LocalAddr().String() // where it was sent
	var to net.Conn
	var err error
	if s.Listening(portOf(c.LocalAddr())) {
		to, err = s.Dial(ctx, portOf(c.LocalAddr()))
	} else {
		var d net.Dialer
		to, err = d.DialContext(ctx, "tcp", at)
	}
	if err != nil {
		s.log.Debug("carrying a connection to the machine's localhost", "address", at, "error", err)
		reset(c)
		return
	}
	p.join(c, to)
}
