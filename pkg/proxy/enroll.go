package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// enrollMost is how long an enrolment may be, in bytes.
	enrollMost = 64 << 10
	// enrollTime is how long one may take.
	enrollTime = 10 * time.Second
	enrolled   = "enrolled\n"
)

// enrolment is what a standing agent learns of its next session: JSON, as Enroll hands it over.
type enrolment struct {
	Owner        string `json:"owner"`
	HostKey      []byte `json:"host_key"`
	ClientPublic []byte `json:"client.pub"`
	Token        []byte `json:"token"`
}

// EnrollMessage is what Enroll takes: the agent's part of the keys, and who their owner is. It is secret.
func EnrollMessage(k Keys, owner string) []byte {
	text, _ := json.Marshal(enrolment{owner, k.HostKey, k.ClientPublic, k.Token}) // of strings and bytes: never fails
	return text
}

func parseEnrolment(text []byte) (enrolment, error) {
	var e enrolment
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("parsing the enrolment: %w", err)
	}
	if len(e.Token) < 16 {
		return e, errors.New("the enrolment has no token")
	}
	_, err := Keys{HostKey: e.HostKey, ClientPublic: e.ClientPublic}.serverConfig()
	return e, err
}

// enrollAddr is where the standing agent of a session port takes enrolments: an abstract unix socket, whose peers
// must be processes of the same user in the same container.
func enrollAddr(port uint16) string { return fmt.Sprintf("@telepresence-agent/%d/enroll", port) }

// Enroll hands an EnrollMessage to the standing agent of a session port of this container, which then serves that
// session. It is refused while the agent serves another.
func Enroll(ctx context.Context, port uint16, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, enrollTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", enrollAddr(port))
	if err != nil {
		return err
	}
	defer conn.Close()
	var answer []byte
	err = bounded(ctx, conn, func() error {
		_, err := conn.Write(message)
		if err == nil {
			err = conn.(*net.UnixConn).CloseWrite()
		}
		if err == nil {
			answer, err = io.ReadAll(io.LimitReader(conn, enrollMost))
		}
		return err
	})
	if err == nil && string(answer) != enrolled {
		err = errors.New(string(answer))
	}
	return err
}

// enroller takes enrolments, one at a time.
type enroller struct {
	log  *slog.Logger
	next chan enrolling

	mu     sync.Mutex // guards the fields below
	holder string     // whose session is served; "" is none
	since  time.Time
}

// enrolling is an enrolment that waits for an answer.
type enrolling struct {
	enrolment
	answer chan error
}

// run takes enrolments on l until it is closed or ctx ends.
func (e *enroller) run(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			e.log.Warn("waiting for an enrolment", "error", err)
			timer := time.NewTimer(time.Second) // out of descriptors, most likely
			<-timer.C
			continue
		}
		text := enrolled
		if err := e.take(ctx, conn); err != nil {
			e.log.Warn("enrolment refused", "reason", err)
			text = err.Error()
		}
		_, _ = io.WriteString(conn, text) // fits into any socket's buffer; who doesn't read it, doesn't know
		_ = conn.Close()
	}
}

// take reads an enrolment and waits until it is served.
func (e *enroller) take(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, enrollTime)
	defer cancel()
	if err := checkPeer(conn); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(enrollTime)); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(conn, enrollMost))
	if err != nil {
		return err
	}
	parsed, err := parseEnrolment(text)
	if err != nil {
		return err
	}
	if err := e.hold(parsed.Owner); err != nil {
		return err
	}
	next := enrolling{enrolment: parsed, answer: make(chan error, 1)}
	select {
	case e.next <- next:
	case <-ctx.Done():
		e.release()
		return ctx.Err()
	}
	return <-next.answer
}

// hold makes owner the one whose session is served, unless there is one.
func (e *enroller) hold(owner string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holder != "" {
		return fmt.Errorf("%s uses this proxy since %s", e.holder, e.since.UTC().Format(time.RFC3339))
	}
	if e.holder = owner; owner == "" {
		e.holder = "somebody"
	}
	e.since = time.Now()
	return nil
}

func (e *enroller) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holder = ""
}

// serveStanding serves one enrolled session after the other, until ctx ends.
func (sv *server) serveStanding(ctx context.Context) error {
	l, err := net.Listen("unix", enrollAddr(sv.cfg.Port))
	if err != nil {
		return err
	}
	e := &enroller{log: sv.log, next: make(chan enrolling)}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() { e.run(ctx, l) })
	for {
		select {
		case next := <-e.next:
			sv.log.Info("enrolled", "owner", next.Owner)
			err := sv.serveEnrolled(ctx, next)
			e.release()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			sv.log.Info("the session is over", "owner", next.Owner, "reason", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// serveEnrolled serves a session and answers its enrolment once a client can come.
func (sv *server) serveEnrolled(ctx context.Context, next enrolling) error {
	l, err := listenLoopback(sv.cfg.Port)
	next.answer <- err
	if err != nil {
		return err
	}
	return sv.serveSession(ctx, l, Keys{HostKey: next.HostKey, ClientPublic: next.ClientPublic, Token: next.Token})
}
