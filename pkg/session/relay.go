package session

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// halfCloser is a connection whose directions end one at a time.
type halfCloser interface{ CloseWrite() error }

// resetter is a connection that can be ended as TCP's reset does.
type resetter interface{ Reset() error }

// relay carries what comes on each of two connections to the other one until
// both directions have ended, and closes both. An end in one direction is
// passed on as that; a reset as a reset.
func relay(a, b net.Conn) {
	var both sync.WaitGroup
	both.Go(func() { carry(a, b) })
	both.Go(func() { carry(b, a) })
	both.Wait()
	_ = a.Close()
	_ = b.Close()
}

// carry copies one direction, and passes on how it ended.
func carry(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err == nil {
		if h, ok := to.(halfCloser); ok && h.CloseWrite() == nil {
			return
		}
	}
	// Whichever end broke, neither can be told the truth but by a reset.
	if err != nil && !errors.Is(err, net.ErrClosed) {
		reset(to)
		reset(from)
		return
	}
	_ = to.Close()
}

// reset ends a connection so that the other end gets ECONNRESET.
func reset(c net.Conn) {
	switch c := c.(type) {
	case resetter:
		_ = c.Reset()
	case *net.TCPConn:
		_ = c.SetLinger(0)
	}
	_ = c.Close()
}

// refused tells whether a dial found nobody listening.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
