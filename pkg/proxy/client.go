package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telepresence/telepresence/pkg/proxy/resume"
)

const (
	// clientGrace is how long a client tries to get its tunnel back, if not said otherwise.
	clientGrace = 2 * time.Minute
	// headroom is what control messages may take in the stream's buffer beyond bulk data.
	headroom = 32 << 20
	// firstTries is how long Connect goes on when a transport ends in the handshake: the agent may still be starting.
	firstTries = 15 * time.Second
	// busyTries is how long it does so while there is another client: the agent may not have noticed its end.
	busyTries = 3 * time.Second
)

var errRefused = errors.New("the agent refuses")

// VersionError is what Connect returns if the agent speaks another version of the protocol.
type VersionError = resume.VersionError

// ClientConfig says how a client reaches its agent.
type ClientConfig struct {
	// Dial makes a transport to the agent's port. It is called again, not concurrently, whenever the transport breaks.
	Dial func(context.Context) (net.Conn, error)
	// Keys are the session's.
	Keys Keys
	// Grace is how long to try to get a broken tunnel back. Default 2 minutes.
	Grace time.Duration
	// Buffer is how many bytes are kept in each direction until the other end has them. Default 32 MiB.
	Buffer int
	// Log gets what happens to the tunnel, never a secret. Default: nothing is logged.
	Log *slog.Logger
	// Down is called when the tunnel breaks, with the reason, and Up when it is back. Neither may block. Flows wait
	// meanwhile.
	Down func(error)
	Up   func()
}

// Client is the end of the tunnel outside the cluster. It is safe for concurrent use. Close ends all its flows.
type Client struct {
	tunnel
	stream  *resume.Conn
	log     *slog.Logger
	numbers atomic.Uint32
	done    chan struct{} // closed when Wait has something to say
	over    sync.Once
	err     error // set before done is closed

	listenersMu sync.Mutex // guards listeners
	listeners   map[uint32]*listener
}

// Connect connects to an agent. ctx bounds only the connecting; the Client lives until Close. An error of cfg.Dial is
// returned at once; when what it dialled ends in the middle of the handshake, that is tried again for 15 s, and for 3 s
// when another client is connected.
func Connect(ctx context.Context, cfg ClientConfig) (*Client, error) {
	sshConfig, err := cfg.Keys.clientConfig()
	if err != nil {
		return nil, err
	}
	c := &Client{log: cfg.Log, done: make(chan struct{}), listeners: make(map[uint32]*listener)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.stream, err = dialStream(ctx, cfg, c.log); err != nil {
		return nil, fmt.Errorf("connecting to the agent: %w", err)
	}
	c.room = c.stream.WaitRoom
	c.bonds, c.stripes = make(map[uint32]*bond), true
	var chans <-chan ssh.NewChannel
	var reqs <-chan *ssh.Request
	err = bounded(ctx, c.stream, func() (err error) {
		c.conn, chans, reqs, err = ssh.NewClientConn(&watched{Conn: c.stream, dead: &c.dead}, "agent", sshConfig)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to the agent: %w", err), c.stream.Close())
	}
	c.tasks.start(func() { c.requests(reqs) })
	c.tasks.start(func() { c.channels(chans) })
	c.tasks.start(func() { c.end(c.conn.Wait()) })
	c.tasks.start(c.measure)
	return c, nil
}

// dialStream makes the stream under the SSH.
func dialStream(ctx context.Context, cfg ClientConfig, log *slog.Logger) (*resume.Conn, error) {
	rc := resume.Config{
		Token:    cfg.Keys.Token,
		Grace:    cfg.Grace,
		Buffer:   cfg.Buffer,
		Headroom: headroom,
		Log:      log,
		Down:     cfg.Down,
		Up:       cfg.Up,
	}
	if rc.Grace <= 0 {
		rc.Grace = clientGrace
	}
	if rc.Buffer <= 0 {
		rc.Buffer = 32 << 20
	}
	dialled := false
	dial := func(ctx context.Context) (net.Conn, error) {
		nc, err := cfg.Dial(ctx)
		dialled = dialled || err == nil
		return nc, err
	}
	for start := time.Now(); ; {
		stream, err := resume.Dial(ctx, dial, rc)
		busy := errors.Is(err, resume.ErrBusy) && time.Since(start) > busyTries
		var other *VersionError
		final := errors.Is(err, resume.ErrDenied) || errors.As(err, &other) || busy || !dialled || time.Since(start) > firstTries
		if err == nil || final || ctx.Err() != nil {
			return stream, err
		}
		log.Debug("connecting to the agent", "error", err)
		dialled = false
		timer := time.NewTimer(200 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// watched tells that the stream has ended before SSH knows, so that its channels end as broken.
type watched struct {
	net.Conn
	dead *atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.dead.Store(true)
	}
	return n, err
}

// bounded runs f, which uses c, and closes c when ctx ends meanwhile.
func bounded(ctx context.Context, c io.Closer, f func() error) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	returned := make(chan struct{})
	defer close(returned)
	wg.Go(func() {
		select {
		case <-ctx.Done():
			_ = c.Close() // f's error is the one that counts
		case <-returned:
		}
	})
	return errors.Join(f(), ctx.Err())
}

// requests handles the agent's global requests.
func (c *Client) requests(reqs <-chan *ssh.Request) {
	for req := range reqs {
		if req.Type == requestEnding {
			c.end(fmt.Errorf("the agent ends: %s", req.Payload))
		}
		_ = req.Reply(false, nil) // fails only when the tunnel is gone
	}
}

// channels handles the channels the agent opens.
func (c *Client) channels(chans <-chan ssh.NewChannel) {
	for nc := range chans {
		switch nc.ChannelType() {
		case channelAccept:
			c.accept(nc)
		case channelStripe:
			c.tasks.start(func() { c.takeStripe(nc) })
		default:
			_ = nc.Reject(ssh.UnknownChannelType, nc.ChannelType()) // fails only when the tunnel is gone
		}
	}
}

// end lets Wait return err; the first one counts.
func (c *Client) end(err error) {
	c.over.Do(func() {
		if reason := c.stream.Err(); reason != nil {
			err = reason
		}
		c.err = err
		close(c.done)
	})
}

// Wait returns when the tunnel is lost for good, with the reason, or closed. It also returns when the agent announces
// its end, as when the pod is deleted; flows then go on for the time the pod has left, until Close.
func (c *Client) Wait() error {
	<-c.done
	return c.err
}

// Close ends the tunnel and all its flows; the pod's ends are reset. It waits until nothing of the Client runs.
func (c *Client) Close() error {
	c.over.Do(func() { close(c.done) })
	c.dead.Store(true)
	_ = c.conn.Close() // the stream is closed below in any case
	err := c.stream.Close()
	c.tasks.wait()
	return err
}

// Goodbye ends the session in order: the agent exits as soon as it has answered.
func (c *Client) Goodbye(ctx context.Context) error {
	c.over.Do(func() { close(c.done) })
	if err := c.request(ctx, requestGoodbye, nil); err != nil {
		return fmt.Errorf("ending the session with the agent: %w", err)
	}
	return nil
}

// SetReady says what the agent answers to the question whether the pod is ready. It is not, at first.
func (c *Client) SetReady(ctx context.Context, ready bool) error {
	payload := []byte{0}
	if ready {
		payload[0] = 1
	}
	if err := c.request(ctx, requestReady, payload); err != nil {
		return fmt.Errorf("telling the agent about readiness: %w", err)
	}
	return nil
}

// request makes a global request.
func (c *Client) request(ctx context.Context, name string, payload []byte) error {
	return c.do(ctx, func() error {
		ok, _, err := c.conn.SendRequest(name, true, payload)
		if err == nil && !ok {
			return errRefused
		}
		return err
	})
}

// do runs f, which ends with the tunnel at the latest, but returns when ctx ends.
func (c *Client) do(ctx context.Context, f func() error) error {
	result := make(chan error, 1)
	if !c.tasks.start(func() { result <- f() }) {
		return net.ErrClosed
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open opens a channel. If ctx ends first, the channel is closed as soon as it opens; number, if not 0, is what the
// agent is then told to give up.
func (c *Client) open(ctx context.Context, kind string, payload []byte, number uint32) (ssh.Channel, <-chan *ssh.Request, error) {
	type opened struct {
		ch   ssh.Channel
		reqs <-chan *ssh.Request
		err  error
	}
	result := make(chan opened) // unbuffered, so that it is either taken or closed
	started := c.tasks.start(func() {
		var o opened
		o.ch, o.reqs, o.err = c.conn.OpenChannel(kind, payload)
		select {
		case result <- o:
		case <-ctx.Done():
			if o.err == nil {
				_ = o.ch.Close() // fails when the agent was first
				ssh.DiscardRequests(o.reqs)
			}
		}
	})
	if !started {
		return nil, nil, net.ErrClosed
	}
	select {
	case o := <-result:
		return o.ch, o.reqs, openError(o.err)
	case <-ctx.Done():
		if number != 0 {
			_, _, _ = c.conn.SendRequest(requestCancel, false, ssh.Marshal(cancelOpen{Number: number})) // only saves work
		}
		return nil, nil, ctx.Err()
	}
}

// collect opens a channel and returns all that comes on it.
func (c *Client) collect(ctx context.Context, kind string, payload []byte) ([]byte, error) {
	ch, reqs, err := c.open(ctx, kind, payload, 0)
	if err != nil {
		return nil, err
	}
	var text []byte
	err = c.do(ctx, func() (err error) {
		text, err = io.ReadAll(ch)
		_ = ch.Close() // fails when the agent was first
		ssh.DiscardRequests(reqs)
		return err
	})
	if err != nil {
		return nil, err // text may still be written
	}
	return text, nil
}
