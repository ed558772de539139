package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// ErrNotReady is an agent's answer while its client has not said that the pod is ready.
var ErrNotReady = errors.New("not ready")

const (
	answerReady    = "ready\n"
	answerNotReady = "not ready\n"
)

// readyAddr is where the agent of a session port answers whether the pod is ready: an abstract unix socket of the
// pod's network, since the container's file system may be read-only.
func readyAddr(port uint16) string { return fmt.Sprintf("@telepresence-agent/%d", port) }

// answering runs f, and answers meanwhile whether the pod is ready.
func (sv *server) answering(port uint16, f func() error) error {
	l, err := net.Listen("unix", readyAddr(port))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() { sv.answerReady(l) })
	return f()
}

// answerReady answers until l is closed.
func (sv *server) answerReady(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			sv.log.Warn("answering whether the pod is ready", "error", err)
			timer := time.NewTimer(time.Second) // out of descriptors, most likely
			<-timer.C
			continue
		}
		text := answerNotReady
		if sv.ready.Load() && !sv.away(time.Now()) {
			text = answerReady
		}
		_, _ = io.WriteString(conn, text) // fits into any socket's buffer; who doesn't read it, doesn't know
		_ = conn.Close()
	}
}

// away tells whether the client has been without a connection for too long.
func (sv *server) away(now time.Time) bool {
	lost := sv.lost.Load()
	return lost != nil && now.Sub(*lost) > sv.cfg.Away
}

// Ready asks the agent of a session port of this pod whether the pod is ready: nil if so, else ErrNotReady or what
// keeps the agent from answering.
func Ready(ctx context.Context, port uint16) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", readyAddr(port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	text, err := io.ReadAll(io.LimitReader(conn, int64(len(answerNotReady))))
	if err != nil {
		return err
	}
	if string(text) != answerReady {
		return ErrNotReady
	}
	return nil
}
