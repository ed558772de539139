package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/telepresence/telepresence/pkg/proxy"
	"github.com/telepresence/telepresence/pkg/vpn"
	"github.com/telepresence/telepresence/pkg/vpn/resolver"
)

// How long the agent has to answer when the session ends.
const answerWithin = 5 * time.Second

// openTunnel connects to the agent in the proxy pod, and has it noticed when the
// tunnel is lost for good.
func (s *session) openTunnel(ctx context.Context) error {
	tunnel, err := proxy.Connect(ctx, proxy.ClientConfig{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return s.cluster.PortForward(ctx, s.podName(), s.plan.AgentPort)
		},
		Keys: s.keys,
		Log:  s.o.Log,
		Down: func(err error) {
			s.o.Log.Warn("the connection to the proxy broke", "err", err)
			s.ev.Warn("the connection to the proxy broke: connecting again, open connections wait")
		},
		Up: func() { s.ev.Tell("connected to the proxy again") },
	})
	if err != nil {
		return s.tunnelError(err)
	}
	s.tunnel = tunnel
	s.stopWatch = s.tasks.begin(ctx, "the tunnel", func(context.Context) error { return tunnel.Wait() })
	return nil
}

// closeTunnel tells the agent that the session has ended, so that it doesn't
// wait for the client to come back.
func (s *session) closeTunnel(ctx context.Context) error {
	if s.tunnel == nil {
		return nil
	}
	farewell, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if err := s.tunnel.Goodbye(farewell); err != nil {
		s.o.Log.Info("saying goodbye to the agent", "err", err)
	}
	err := s.tunnel.Close()
	s.stopWatch()
	if err != nil {
		s.o.Log.Info("closing the tunnel", "err", err)
	}
	return nil
}

// intercept turns what the room's processes send into flows on the tunnel.
func (s *session) intercept(ctx context.Context) error {
	names := resolver.New(resolver.Config{
		Exchange: s.tunnel.Exchange,
		Hosts:    s.pod.Hosts,
		Log:      s.o.Log,
	})
	answer := names.Answer
	if machine, ok := s.room.(interface {
		names(inside *resolver.Resolver) resolver.Exchange
	}); ok {
		answer = machine.names(names)
	}
	engine, err := vpn.New(vpn.Config{
		Device:  s.room.Device(),
		Dialer:  &pinging{Client: s.tunnel, warn: s.ev.Warn},
		DNS:     answer,
		DNSAddr: s.room.DNSAddr(),
		Log:     s.o.Log,
	})
	if err != nil {
		return err
	}
	s.stopEngine = s.tasks.begin(ctx, "the engine", engine.Run)
	return nil
}

// pinging is the tunnel to an agent that may be forbidden to ping.
type pinging struct {
	*proxy.Client
	warn func(string)
	once sync.Once
}

// Ping tells the user, once, why their pings are answered with "prohibited".
func (p *pinging) Ping(ctx context.Context, addr netip.Addr, payload []byte) error {
	err := p.Client.Ping(ctx, addr, payload)
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
		p.once.Do(func() {
			p.warn("the pod may not ping: its sysctl net.ipv4.ping_group_range or the capability NET_RAW would allow it")
		})
	}
	return err
}

func (s *session) stopIntercepting(context.Context) error {
	if s.stopEngine != nil {
		s.stopEngine()
	}
	return nil
}

// serve opens the ports: the exposed ones and --from-pod's lead from the pod to
// the process, --to-pod's from the process to the pod.
func (s *session) serve(ctx context.Context) error {
	s.inbound = newInbound(s.tunnel, s.room, inboundPorts(anyAddress, s.plan.Ports...), s.ev, s.o.Log)
	s.stopInbound = append(s.stopInbound, s.tasks.begin(ctx, "the exposed ports", s.inbound.run))
	if len(s.fromPod) > 0 {
		beside := newInbound(s.tunnel, s.room, fromPodPorts(s.fromPod), s.ev, s.o.Log)
		s.stopInbound = append(s.stopInbound, s.tasks.begin(ctx, "--from-pod", beside.run))
	}
	for _, port := range s.toPod {
		listener, err := s.room.ListenInside(ctx, uint16(port))
		if err != nil {
			return fmt.Errorf("--to-pod %d: %w", port, err)
		}
		s.stopInbound = append(s.stopInbound, s.tasks.begin(ctx, fmt.Sprintf("--to-pod %d", port), func(ctx context.Context) error {
			return s.lead(ctx, listener, netip.AddrPortFrom(loopback, uint16(port)))
		}))
	}
	return nil
}

// stopServing takes the listeners away. The agent is asked to do so, and may have
// gone with its pod, as after telepresence leave: a tunnel that doesn't answer is
// closed, since whoever ends a session doesn't wait for it to come back.
func (s *session) stopServing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	stopped := make(chan struct{})
	defer close(stopped)
	beside.Go(func() {
		select {
		case <-stopped:
		case <-ctx.Done():
			_ = s.tunnel.Close()
		}
	})
	for _, stop := range s.stopInbound {
		stop()
	}
	return nil
}

// lead carries what connects to a listener to an address in the pod, until ctx
// ends. It closes the listener.
func (s *session) lead(ctx context.Context, listener net.Listener, to netip.AddrPort) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	conns.Go(func() {
		<-ctx.Done()
		_ = listener.Close()
	})
	for {
		caller, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		conns.Go(func() {
			pod, err := s.tunnel.DialContext(ctx, "tcp", to)
			if err != nil {
				s.o.Log.Info("a connection to the pod was refused", "to", to, "err", err)
				reset(caller)
				return
			}
			relayUntil(ctx, caller, pod)
		})
	}
}
