package portforward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
)

// addr is an address of something that has no address of its own.
type addr string

func (addr) Network() string  { return "port-forward" }
func (a addr) String() string { return string(a) }

// streamConn is a stream of a SPDY session as a net.Conn.
type streamConn struct {
	remote  addr
	session httpstream.Connection
	raw     io.Closer // what carries the session; closing it ends every read and write of the session's
	data    httpstream.Stream
	failure httpstream.Stream
	in      net.Conn // from the pod
	out     net.Conn // to the pod

	copying   sync.WaitGroup
	drained   chan struct{} // closed when all that was written is with the session
	closeOnce sync.Once

	mu   sync.Mutex // guards what follows
	lost error      // why the pod's end is gone; nil for an orderly end
}

// openStream opens the pair of streams that forwards one connection. It owns session and raw, also when it fails.
func openStream(ctx context.Context, session httpstream.Connection, raw io.Closer, port uint16) (*streamConn, error) {
	header := http.Header{}
	header.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	header.Set(corev1.PortForwardRequestIDHeader, "0")
	var failure, data httpstream.Stream
	open := func() (err error) {
		header.Set(corev1.StreamType, corev1.StreamTypeError)
		if failure, err = session.CreateStream(header); err != nil {
			return fmt.Errorf("opening the error stream: %w", err)
		}
		if err := failure.Close(); err != nil { // nothing is written to it
			return fmt.Errorf("opening the error stream: %w", err)
		}
		header.Set(corev1.StreamType, corev1.StreamTypeData)
		if data, err = session.CreateStream(header); err != nil {
			return fmt.Errorf("opening the data stream: %w", err)
		}
		return nil
	}
	opened := make(chan error, 1)
	var opening sync.WaitGroup
	opening.Go(func() { opened <- open() })
	var err error
	select {
	case err = <-opened:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		raw.Close()
		opening.Wait()
		return nil, err
	}
	c := &streamConn{
		remote: addr("pod:" + strconv.Itoa(int(port))), session: session, raw: raw,
		data: data, failure: failure, drained: make(chan struct{}),
	}
	c.start()
	return c, nil
}

// start starts the copiers; Close ends them and waits.
func (c *streamConn) start() {
	var fromPod, toPod net.Conn
	c.in, fromPod = net.Pipe()
	c.out, toPod = net.Pipe()

	failed := make(chan struct{})
	c.copying.Go(func() {
		defer close(failed)
		text, err := io.ReadAll(io.LimitReader(c.failure, 64<<10))
		switch {
		case len(text) > 0:
			c.lose(errors.New(podFailure(string(text))))
		case err != nil:
			c.lose(err)
		}
	})
	c.copying.Go(func() {
		defer fromPod.Close()
		if _, err := io.Copy(fromPod, c.data); err != nil {
			c.lose(err)
		}
		// What went wrong is told on the other stream, which the kubelet ends before this one.
		select {
		case <-failed:
		case <-time.After(time.Second):
		}
		select {
		case <-c.session.CloseChan():
			c.lose(errors.New("the connection to the API server broke"))
		default: // the pod's orderly end
		}
	})
	c.copying.Go(func() {
		defer close(c.drained)
		defer toPod.Close()
		if _, err := io.Copy(c.data, toPod); err != nil {
			c.lose(err)
			return
		}
		if err := c.data.Close(); err != nil { // half-closes
			c.lose(err)
		}
	})
}

// podFailure takes the sentence out of the kubelet's: "error forwarding port 80 to pod ID, uid : …: connect: connection refused".
func podFailure(text string) string {
	text = strings.TrimSpace(text)
	if strings.Contains(text, "connection refused") {
		return "nothing listens on that port in the pod"
	}
	return text
}

func (c *streamConn) lose(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == nil {
		c.lost = err
	}
}

// why is the reason for an error of a pipe.
func (c *streamConn) why(op string, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case c.lost != nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)):
		return &net.OpError{Op: op, Net: c.remote.Network(), Addr: c.remote, Err: c.lost}
	case errors.Is(err, io.ErrClosedPipe):
		return net.ErrClosed
	}
	return err
}

func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	return n, c.why("read", err)
}

func (c *streamConn) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	return n, c.why("write", err)
}

// CloseWrite says that nothing more will be written; reading goes on.
func (c *streamConn) CloseWrite() error {
	return c.out.Close()
}

// Close gives what was written a second to leave, ends the session and waits for all that serves it.
func (c *streamConn) Close() error {
	c.closeOnce.Do(func() {
		c.lose(net.ErrClosed)
		c.in.Close()
		c.out.Close()
		select {
		case <-c.drained:
		case <-time.After(time.Second):
		}
		c.raw.Close()
		c.data.Reset()    //nolint:errcheck // frees the session's worker that waits for a reader
		c.failure.Reset() //nolint:errcheck // the same
		c.copying.Wait()
		<-c.session.CloseChan()
	})
	return nil
}

func (c *streamConn) LocalAddr() net.Addr                { return addr("local") }
func (c *streamConn) RemoteAddr() net.Addr               { return c.remote }
func (c *streamConn) SetReadDeadline(t time.Time) error  { return c.in.SetReadDeadline(t) }
func (c *streamConn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

func (c *streamConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
