package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pkg/sftp"
)

// maxRequests is how many requests may wait for an answer at once. With more,
// as happens when the tunnel stalls, callers wait their turn, up to the
// timeout.
const maxRequests = 512

// remote makes requests to the pod's SFTP server. A request waits for its
// answer no longer than the pod is silent for the timeout, nor than its caller; and a session that
// broke is opened anew. Safe for concurrent use.
type remote struct {
	open    func(ctx context.Context) (io.ReadWriteCloser, error)
	timeout time.Duration
	log     *slog.Logger
	slots   chan struct{} // one for each request under way
	closed  chan struct{}
	running sync.WaitGroup
	heard   atomic.Pointer[time.Time] // when something last came from the pod

	connecting chan struct{} // holds one token: whoever has it opens a session

	mu      sync.Mutex // guards the fields below
	session *session   // nil before the first, and when one broke
	stopped bool
}

// session is one SFTP session. Handles of files live and die with it.
type session struct {
	client *sftp.Client
	pipe   io.ReadWriteCloser
}

func newRemote(cfg Config) *remote {
	return &remote{
		open:       cfg.SFTP,
		timeout:    cfg.Timeout,
		log:        cfg.Log,
		slots:      make(chan struct{}, maxRequests),
		closed:     make(chan struct{}),
		connecting: make(chan struct{}, 1),
	}
}

// close ends the session; requests under way fail with EIO. It waits for them.
func (r *remote) close() {
	r.mu.Lock()
	if r.stopped {
		r.mu.Unlock()
		return
	}
	r.stopped = true
	s := r.session
	r.session = nil
	close(r.closed)
	r.mu.Unlock()
	if s != nil {
		s.close()
	}
	r.running.Wait()
}

// close breaks the pipe first, so that the client need not wait for a server
// that has stalled.
func (s *session) close() {
	_ = s.pipe.Close()
	_ = s.client.Close()
}

// start runs f on a goroutine that close waits for; false after close.
func (r *remote) start(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	r.running.Go(f)
	return true
}

// connect makes sure that there is a session.
func (r *remote) connect(ctx context.Context) error {
	_, err := call(ctx, r, func(*session) (struct{}, error) { return struct{}{}, nil }, nil)
	return err
}

// call has op make a request and returns its result, or an error when ctx
// ends (an interrupted system call), when the pod sent nothing for the timeout,
// or when the remote is closed. discard gets a result that came too late; it may be nil.
func call[T any](ctx context.Context, r *remote, op func(*session) (T, error), discard func(*session, T)) (T, error) {
	var none T
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := time.Now()
	timer := time.NewTimer(r.timeout)
	defer timer.Stop()
	select {
	case r.slots <- struct{}{}:
	case <-timer.C:
		return none, errStalled
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-r.closed:
		return none, errClosed
	}
	answers := make(chan answer[T])
	if !r.start(func() { ask(ctx, r, op, discard, answers) }) {
		<-r.slots
		return none, errClosed
	}
	for {
		select {
		case a := <-answers:
			return a.value, a.err
		case <-timer.C:
			quiet := time.Since(r.lastHeard(asked))
			if quiet >= r.timeout || time.Since(asked) >= longestRequest {
				return none, errStalled
			}
			timer.Reset(r.timeout - quiet)
		case <-ctx.Done():
			return none, context.Cause(ctx)
		case <-r.closed:
			return none, errClosed
		}
	}
}

// answer is what came of a request.
type answer[T any] struct {
	value T
	err   error
}

// ask makes the request and hands its answer over unless ctx ends before. It
// frees a slot.
func ask[T any](ctx context.Context, r *remote, op func(*session) (T, error), discard func(*session, T), answers chan<- answer[T]) {
	defer func() { <-r.slots }()
	var value T
	s, err := r.use(ctx)
	if err == nil {
		value, err = op(s)
		r.inspect(s, err)
	}
	select {
	case answers <- answer[T]{value, err}:
	case <-ctx.Done():
		if err == nil && discard != nil {
			discard(s, value)
		}
	}
}

// lastHeard is when the pod last sent something, at the earliest the time
// given. A slow tunnel on which answers trickle in hasn't stalled.
func (r *remote) lastHeard(earliest time.Time) time.Time {
	if at := r.heard.Load(); at != nil && at.After(earliest) {
		return *at
	}
	return earliest
}

var (
	errStalled = fmt.Errorf("no answer from the pod: %w", syscall.EIO)
	errClosed  = fmt.Errorf("the mount is closed: %w", syscall.EIO)
	errBroken  = fmt.Errorf("the connection to the pod broke: %w", syscall.EIO)
)

// use gives the session, opening one if there is none.
func (r *remote) use(ctx context.Context) (*session, error) {
	if s := r.current(); s != nil {
		return s, nil
	}
	select {
	case r.connecting <- struct{}{}:
		defer func() { <-r.connecting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.closed:
		return nil, errClosed
	}
	if s := r.current(); s != nil {
		return s, nil
	}
	s, err := r.dial(ctx)
	if err != nil {
		r.log.Warn("opening an SFTP session", "err", err)
		return nil, fmt.Errorf("opening an SFTP session: %w", err)
	}
	r.mu.Lock()
	stopped := r.stopped
	if !stopped {
		r.session = s
	}
	r.mu.Unlock()
	watched := !stopped && r.start(func() { r.drop(s, s.client.Wait()) })
	if !watched {
		s.close()
		return nil, errClosed
	}
	return s, nil
}

func (r *remote) current() *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.session
}

// dial opens a session. Only closing the pipe ends a greeting that stalls, so
// a second goroutine does that when ctx ends.
func (r *remote) dial(ctx context.Context) (*session, error) {
	pipe, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	var watch sync.WaitGroup
	greeted := make(chan struct{})
	watch.Go(func() {
		select {
		case <-greeted:
		case <-ctx.Done():
			_ = pipe.Close()
		case <-r.closed:
			_ = pipe.Close()
		}
	})
	client, err := sftp.NewClientPipe(wire{pipe, &r.heard}, wire{pipe, &r.heard}, sftp.UseConcurrentReads(true), sftp.UseConcurrentWrites(true))
	close(greeted)
	watch.Wait()
	if err != nil {
		_ = pipe.Close()
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		_ = pipe.Close()
		_ = client.Close()
		return nil, context.Cause(ctx)
	}
	return &session{client: client, pipe: pipe}, nil
}

// inspect forgets s if err says that it broke.
func (r *remote) inspect(s *session, err error) {
	if errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, errBroken) {
		r.drop(s, err)
	}
}

// drop forgets a session that broke.
func (r *remote) drop(s *session, why error) {
	r.mu.Lock()
	mine := r.session == s
	if mine {
		r.session = nil
	}
	r.mu.Unlock()
	if mine {
		r.log.Info("the SFTP session broke", "err", why)
		s.close()
	}
}

// wire is the pipe under a session.
type wire struct {
	io.ReadWriteCloser
	heard *atomic.Pointer[time.Time]
}

// Read reads from the pipe, and notes when.
func (w wire) Read(b []byte) (int, error) {
	n, err := w.ReadWriteCloser.Read(b)
	if n > 0 {
		now := time.Now()
		w.heard.Store(&now)
	}
	return n, err
}

// Write writes to the pipe. What goes wrong is named, as an SSH channel that
// was closed says io.EOF, which must not be taken for a file's end.
func (w wire) Write(b []byte) (int, error) {
	n, err := w.ReadWriteCloser.Write(b)
	if err != nil {
		err = fmt.Errorf("%w: %s", errBroken, err.Error()) // not wrapped: it may be io.EOF
	}
	return n, err
}
