package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// packetSize is the most an SSH packet carries.
	packetSize = 32 << 10
	// smallRead is the buffer in which a flow waits for something to come.
	smallRead = 1 << 10
	// orphanTime is how long what was sent to a connection of the pod may take to leave when the client has gone.
	orphanTime = time.Minute
	// closeTime is how long the client may take to close a channel that was reset.
	closeTime = 5 * time.Second
)

var buffers = sync.Pool{New: func() any {
	b := make([]byte, packetSize)
	return &b
}}

func takeBuffer() *[]byte  { return buffers.Get().(*[]byte) }
func giveBuffer(b *[]byte) { buffers.Put(b) }

// writeChannel writes p to ch as bulk data: not more than the tunnel takes, so that control messages never wait for
// the other end.
func writeChannel(t *tunnel, ch io.Writer, p []byte) error {
	for len(p) > 0 {
		if err := t.room(); err != nil {
			return err
		}
		n, err := ch.Write(p[:min(len(p), packetSize)])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// copyChannel copies what comes on ch to w, until the end. Flows on which nothing comes hold little memory.
func copyChannel(w io.Writer, ch io.Reader) (total int64, readErr, writeErr error) {
	small := make([]byte, smallRead)
	var big *[]byte
	defer func() {
		if big != nil {
			giveBuffer(big)
		}
	}()
	for {
		buf := small
		if big != nil {
			buf = *big
		}
		n, err := ch.Read(buf)
		if n > 0 {
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, nil, werr
			}
		}
		if err != nil {
			return total, err, nil
		}
		switch {
		case big == nil && n == len(small):
			big = takeBuffer()
		case big != nil && n < len(small):
			giveBuffer(big)
			big = nil
		}
	}
}

// readReady reads from a socket into a buffer that it takes only when there is something to read. The caller gives
// the buffer back if it is not nil.
func readReady(rc syscall.RawConn) (buf *[]byte, n int, err error) {
	waitErr := rc.Read(func(fd uintptr) bool {
		buf = takeBuffer()
		n, err = syscall.Read(int(fd), *buf)
		for errors.Is(err, syscall.EINTR) {
			n, err = syscall.Read(int(fd), *buf)
		}
		if errors.Is(err, syscall.EAGAIN) {
			giveBuffer(buf)
			buf = nil
			return false
		}
		return true
	})
	if waitErr != nil {
		n, err = 0, waitErr
	}
	return buf, max(n, 0), err
}

// relay carries a TCP connection of the pod over ch, until both have ended.
type relay struct {
	t    *tunnel
	ch   *bond
	sock *net.TCPConn

	reset  atomic.Bool   // the client or the tunnel has reset the flow
	closed chan struct{} // the client has closed ch
}

// run returns when both ends have ended. It closes ch and sock.
func (r *relay) run(reqs <-chan *ssh.Request) {
	r.closed = make(chan struct{})
	var requests, copies sync.WaitGroup
	requests.Go(func() { r.requests(reqs) })
	copies.Go(r.fromPod)
	copies.Go(r.toPod)
	copies.Wait()
	if r.reset.Load() || r.t.dead.Load() {
		_ = r.sock.SetLinger(0) // fails only on a closed socket
	}
	_ = r.sock.Close()
	_ = r.ch.Close() // fails when the client was first
	requests.Wait()
}

// requests handles the client's requests until it closes the channel.
func (r *relay) requests(reqs <-chan *ssh.Request) {
	for req := range reqs {
		if req.Type == requestReset {
			r.abort()
			_ = r.ch.Close() // fails when the client was first
		}
		_ = req.Reply(false, nil) // fails only when the tunnel is gone
	}
	r.ch.end()
	close(r.closed)
	if r.t.dead.Load() {
		r.abort()
		return
	}
	_ = r.sock.SetReadDeadline(time.Now()) // nobody reads it any more; fails on a closed socket only
	_ = r.sock.SetWriteDeadline(time.Now().Add(orphanTime))
}

// abort resets the pod's connection.
func (r *relay) abort() {
	r.reset.Store(true)
	_ = r.sock.SetLinger(0) // fails only on a closed socket
	_ = r.sock.Close()
}

// fromPod copies what the pod's peer sends.
func (r *relay) fromPod() {
	rc, err := r.sock.SyscallConn()
	if err != nil {
		r.fail(err)
		return
	}
	for {
		buf, n, err := readReady(rc)
		if n > 0 {
			err = writeChannel(r.t, r.ch, (*buf)[:n])
		}
		if buf != nil {
			giveBuffer(buf)
		}
		switch {
		case err != nil:
			r.fail(err)
			return
		case n == 0:
			_ = r.ch.CloseWrite() // fails only when ch has ended
			return
		}
	}
}

// toPod copies what the client sends.
func (r *relay) toPod() {
	_, _, err := copyChannel(r.sock, r.ch)
	if err == nil && r.t.dead.Load() {
		r.abort()
		return
	}
	if err == nil {
		err = r.sock.CloseWrite()
	}
	if err != nil && !errors.Is(err, syscall.ENOTCONN) {
		r.fail(err)
	}
}

// fail tells the client that the pod's connection has ended with err, unless it was us or the client who ended it.
func (r *relay) fail(err error) {
	var errno syscall.Errno
	if !errors.As(err, &errno) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	if !r.reset.CompareAndSwap(false, true) {
		return
	}
	if _, err := r.ch.SendRequest(requestReset, false, []byte(errnoName(errno))); err != nil {
		return
	}
	timer := time.NewTimer(closeTime) // our client closes ch when it has noted the reason; others may not
	defer timer.Stop()
	select {
	case <-r.closed:
	case <-timer.C:
		_ = r.ch.Close()
	}
	_ = r.sock.Close() // ends the other direction
}
