package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// session is the agent's end of one client's tunnel.
type session struct {
	tunnel
	numbers atomic.Uint32
	log     *slog.Logger
	version string
	drain   time.Duration
	names   nameservers
	ready   *atomic.Bool
	goodbye atomic.Bool

	presence *presence
	awayTime time.Duration
	link     func() (up bool, changed <-chan struct{}) // nil where the connection is the only one

	dialsMu sync.Mutex // guards dials
	dials   map[uint32]context.CancelFunc
}

// serve serves the client on nc until it ends, or ctx and then the drain time end.
func (s *session) serve(ctx context.Context, nc net.Conn, cfg *ssh.ServerConfig) error {
	if s.room == nil {
		s.room = func() error { return nil }
	}
	var chans <-chan ssh.NewChannel
	var reqs <-chan *ssh.Request
	authCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), authTime) // a client is told of ctx's end when it is known
	err := bounded(authCtx, nc, func() error {
		conn, c, r, err := ssh.NewServerConn(&watched{Conn: nc, dead: &s.dead}, cfg)
		if err == nil {
			s.conn, chans, reqs = conn, c, r
		}
		return err
	})
	cancel()
	if err != nil {
		return fmt.Errorf("meeting the client: %w", err)
	}
	s.log.Info("client connected")
	flows, stop := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan struct{})
	s.tasks.start(func() { s.requests(reqs) })
	s.tasks.start(func() { s.announceEnd(ctx, over) })
	s.tasks.start(s.measure)
	if s.link != nil {
		s.tasks.start(func() { s.watchLink(over) })
	}
	for ch := range chans {
		s.tasks.start(func() { s.open(flows, ch) })
	}
	err = s.conn.Wait()
	close(over)
	stop()
	s.tasks.wait()
	return err
}

// open serves the channel that the client wants.
func (s *session) open(ctx context.Context, nc ssh.NewChannel) {
	switch nc.ChannelType() {
	case channelTCP:
		s.openTCP(ctx, nc)
	case channelUDP:
		s.openUDP(ctx, nc)
	case channelDNS:
		s.openDNS(ctx, nc)
	case channelPing:
		s.openPing(ctx, nc)
	case channelListen:
		s.openListen(ctx, nc)
	case channelListenUDP:
		s.openListenUDP(ctx, nc)
	case channelPodInfo:
		s.openPodInfo(ctx, nc)
	case channelSession:
		s.openSession(ctx, nc)
	case channelStripe:
		s.takeStripe(nc)
	default:
		_ = nc.Reject(ssh.UnknownChannelType, nc.ChannelType()) // fails only when the tunnel is gone
	}
}

// requests handles the client's global requests.
func (s *session) requests(reqs <-chan *ssh.Request) {
	for req := range reqs {
		ok := true
		switch req.Type {
		case requestReady:
			s.ready.Store(len(req.Payload) == 1 && req.Payload[0] == 1)
		case requestCancel:
			var p cancelOpen
			if ssh.Unmarshal(req.Payload, &p) == nil {
				s.cancelDial(p.Number)
			}
		case requestRTT:
		case requestGoodbye:
			s.goodbye.Store(true)
		default:
			ok = false
		}
		_ = req.Reply(ok, nil) // fails only when the tunnel is gone
		if s.goodbye.Load() {
			_ = s.conn.Close() // sends the reply first; ends all else
		}
	}
}

// announceEnd tells the client when ctx ends, and ends the tunnel if the client doesn't in time.
func (s *session) announceEnd(ctx context.Context, over <-chan struct{}) {
	select {
	case <-over:
		return
	case <-ctx.Done():
	}
	s.ready.Store(false)
	_, _, err := s.conn.SendRequest(requestEnding, false, []byte(context.Cause(ctx).Error()))
	timer := time.NewTimer(s.drain)
	defer timer.Stop()
	select {
	case <-over:
		return
	case <-timer.C:
	}
	if err := errors.Join(err, s.conn.Close()); err != nil {
		s.log.Debug("ending the tunnel", "error", err)
	}
}

// cancellable is a context that the client can cancel by its number for the open under way. done must be called.
func (s *session) cancellable(ctx context.Context, number uint32) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	s.dialsMu.Lock()
	s.dials[number] = cancel
	s.dialsMu.Unlock()
	return ctx, func() {
		s.dialsMu.Lock()
		delete(s.dials, number)
		s.dialsMu.Unlock()
		cancel()
	}
}

func (s *session) cancelDial(number uint32) {
	s.dialsMu.Lock()
	defer s.dialsMu.Unlock()
	if cancel := s.dials[number]; cancel != nil {
		cancel()
	}
}
