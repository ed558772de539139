package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telepresence/telepresence/pkg/proxy/resume"
)

const (
	// authTime is how long a client may take to show its key.
	authTime = 30 * time.Second
	// stripesBuffer is the least buffer of an agent that takes stripes.
	stripesBuffer = 8 << 20
	// defaultDrain is within the 30 s that a pod usually has to end.
	defaultDrain = 25 * time.Second
	// defaultAway is longer than a line that was cut usually takes to be back.
	defaultAway = 5 * time.Second
)

// ErrNoClient is the end of an agent that has had no client for its grace.
var ErrNoClient = errors.New("no client has been connected")

// ServerConfig is what an agent runs with.
type ServerConfig struct {
	// Port is the session port, on the pod's loopback.
	Port uint16
	// HostKey, ClientPublic and Token are the agent's part of the session's Keys.
	HostKey, ClientPublic, Token []byte
	// Standing is an agent that learns its keys by Enroll, and serves one session after the other.
	Standing bool
	// Grace is how long a session lives without its client.
	Grace time.Duration
	// Away is how long the client may be without a connection until the pod isn't ready any more: callers are better
	// off with a refusal than with a wait for the end of the grace. Default 5 s.
	Away time.Duration
	// Drain is how long flows may go on after the client was told that the agent ends. Default 25 s.
	Drain time.Duration
	// Buffer is how many bytes are kept in each direction until the client has them. Default 4 MiB.
	Buffer int
	// Version is the agent's, told to clients.
	Version string
	// Log gets what happens, never a secret. Default: nothing is logged.
	Log *slog.Logger
}

// server is a running agent.
type server struct {
	cfg   ServerConfig
	log   *slog.Logger
	ready atomic.Bool
	lost  atomic.Pointer[time.Time] // when the client's connection was lost; nil while there is one
	here  *presence                 // of the present client
}

// Serve is the agent: it serves one client at a time and returns nil after its Goodbye, ErrNoClient when the grace is
// over, and the cause of ctx's end when ctx ends. In the last case the client is told first, and its flows may go on
// until it says Goodbye, at most for the drain time.
//
// A standing agent has no keys at first: it waits for Enroll, serves that session, forgets it when it is over, and
// waits for the next. It returns only when ctx ends.
func Serve(ctx context.Context, cfg ServerConfig) error {
	sv := newServer(cfg)
	if cfg.Standing {
		return sv.answering(cfg.Port, func() error { return sv.serveStanding(ctx) })
	}
	l, err := listenLoopback(cfg.Port)
	if err != nil {
		return err
	}
	return sv.serve(ctx, l)
}

func newServer(cfg ServerConfig) *server {
	if cfg.Drain <= 0 {
		cfg.Drain = defaultDrain
	}
	if cfg.Away <= 0 {
		cfg.Away = defaultAway
	}
	sv := &server{cfg: cfg, log: cfg.Log, here: newPresence()}
	if sv.log == nil {
		sv.log = slog.New(slog.DiscardHandler)
	}
	return sv
}

func listenLoopback(port uint16) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
}

// serve serves the session of the configured keys on l, which it closes.
func (sv *server) serve(ctx context.Context, l net.Listener) error {
	keys := Keys{HostKey: sv.cfg.HostKey, ClientPublic: sv.cfg.ClientPublic, Token: sv.cfg.Token}
	return sv.answering(portOf(l), func() error { return sv.serveSession(ctx, l, keys) })
}

// serveSession serves the session of keys on l, which it closes, until it is over.
func (sv *server) serveSession(ctx context.Context, l net.Listener, keys Keys) error {
	cfg, err := keys.serverConfig()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx)) // streams outlive ctx by the drain time
	defer cancel()
	streams := resume.Listen(life, l, resume.Config{
		Token: keys.Token, Grace: sv.cfg.Grace, Buffer: sv.cfg.Buffer, Headroom: headroom, Log: sv.log,
		Down: func(error) { sv.lost.Store(new(time.Now())) },
		Up:   func() { sv.lost.Store(nil) },
	})
	defer streams.Close()
	for {
		stream, err := sv.await(ctx, streams)
		if err != nil {
			return err
		}
		goodbye := sv.serveStream(ctx, stream, cfg)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case goodbye:
			sv.log.Info("the client said goodbye")
			return nil
		case stream.Err() != nil:
			return fmt.Errorf("%w: %w", ErrNoClient, stream.Err())
		}
	}
}

// await waits for the next client, within the grace.
func (sv *server) await(ctx context.Context, streams *resume.Listener) (*resume.Conn, error) {
	short, cancel := context.WithTimeout(ctx, sv.cfg.Grace)
	defer cancel()
	stream, err := streams.Accept(short)
	switch {
	case err == nil:
		return stream, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case short.Err() != nil:
		return nil, fmt.Errorf("%w for %v", ErrNoClient, sv.cfg.Grace)
	}
	return nil, err
}

func portOf(l net.Listener) uint16 {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return a.AddrPort().Port()
	}
	return 0
}

// serveStream serves a client until it ends, and says whether it said goodbye.
func (sv *server) serveStream(ctx context.Context, stream *resume.Conn, cfg *ssh.ServerConfig) (goodbye bool) {
	s := sv.newSession()
	s.room, s.link = stream.WaitRoom, stream.Link
	defer sv.here.set(true) // the next client's presence
	sv.lost.Store(nil)
	defer sv.ready.Store(false)
	defer stream.Close()
	if err := s.serve(ctx, stream, cfg); err != nil {
		sv.log.Info("client ended", "reason", err)
	}
	return s.goodbye.Load()
}

func (sv *server) newSession() *session {
	return &session{
		tunnel: tunnel{
			bonds: make(map[uint32]*bond),
			// Stripes that nobody reads hold much: not where memory is scarce.
			stripes: sv.cfg.Buffer == 0 || sv.cfg.Buffer >= stripesBuffer,
		},
		log:     sv.log,
		version: sv.cfg.Version,
		drain:   sv.cfg.Drain,
		ready:   &sv.ready,

		presence: sv.here,
		awayTime: sv.cfg.Away,

		names: nameservers{path: "/etc/resolv.conf", port: 53},
		dials: make(map[uint32]context.CancelFunc),
	}
}
