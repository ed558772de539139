package k8s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/websocket"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// A port-forward, outermost first:
//
//	the caller's Read, Write                     deadlines, half-close
//	two in-memory pipes and their two copiers    streamConn
//	a data stream and an error stream            of one SPDY session of its own
//	WebSocket, or nothing                        where the server is older than 1.30 or a proxy is in between
//	TLS to the API server
//
// One session for each connection: a SPDY session stands still as a whole when one of its streams is not read.

// tunnelled is the WebSocket subprotocol that carries SPDY frames.
const tunnelled = "SPDY/3.1+" + portforward.PortForwardProtocolV1Name

// PortForward connects to a port on the loopback of a pod of the namespace. ctx bounds the dialling only. That nothing listens
// there shows as an error of Read, for the kubelet connects when the stream is open already. The caller closes the net.Conn, which
// also has CloseWrite.
func (c *Cluster) PortForward(ctx context.Context, pod string, port plan.Port) (net.Conn, error) {
	doing := fmt.Sprintf("port-forwarding to %s:%d", pod, port)
	session, raw, err := c.dialSession(ctx, pod)
	if err != nil {
		return nil, c.explain(doing, err)
	}
	conn, err := openStream(ctx, session, raw, pod, port)
	if err != nil {
		return nil, c.explain(doing, err)
	}
	return conn, nil
}

// dialSession upgrades a request to a SPDY session: in a WebSocket first, then as it is.
func (c *Cluster) dialSession(ctx context.Context, pod string) (httpstream.Connection, io.Closer, error) {
	u := c.core.CoreV1().RESTClient().Get().Resource("pods").Namespace(c.namespace).Name(pod).SubResource("portforward").URL()
	if c.noWS.Load() {
		return c.dialSPDY(ctx, u)
	}
	session, raw, err := c.dialWebSocket(ctx, u)
	if err == nil || !(httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)) {
		return session, raw, err
	}
	session, raw, spdyErr := c.dialSPDY(ctx, u)
	if spdyErr != nil {
		return nil, nil, spdyErr
	}
	c.noWS.Store(true)
	return session, raw, nil
}

func (c *Cluster) dialWebSocket(ctx context.Context, u *url.URL) (httpstream.Connection, io.Closer, error) {
	transport, holder, err := websocket.RoundTripperFor(c.config)
	if err != nil {
		return nil, nil, fmt.Errorf("preparing a WebSocket: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("preparing a WebSocket: %w", err)
	}
	ws, err := websocket.Negotiate(transport, holder, req, tunnelled)
	if err != nil {
		return nil, nil, err
	}
	conn := portforward.NewTunnelingConnection("client", ws)
	session, err := spdy.NewClientConnectionWithPings(conn, portforward.PingPeriod)
	if err != nil {
		return nil, nil, fmt.Errorf("starting SPDY: %w", err)
	}
	return session, conn, nil
}

// dialSPDY does the upgrade with net/http, which knows every kind of proxy and leaves the connection to us.
func (c *Cluster) dialSPDY(ctx context.Context, u *url.URL) (httpstream.Connection, io.Closer, error) {
	config := rest.CopyConfig(c.config)
	config.NextProtos = []string{"http/1.1"} // HTTP/2 has no upgrade
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, nil, fmt.Errorf("preparing SPDY: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("preparing SPDY: %w", err)
	}
	req.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	req.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	req.Header.Set(httpstream.HeaderProtocolVersion, portforward.PortForwardProtocolV1Name)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	conn, upgraded := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !upgraded {
		return nil, nil, refusedUpgrade(resp)
	}
	session, err := spdy.NewClientConnectionWithPings(upgradedConn{conn}, portforward.PingPeriod)
	if err != nil {
		return nil, nil, fmt.Errorf("starting SPDY: %w", err)
	}
	return session, conn, nil
}

// refusedUpgrade is what the server said in place of upgrading. It closes the response's body.
func refusedUpgrade(resp *http.Response) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("the server does not upgrade to SPDY: %s: %w", resp.Status, err)
	}
	status := new(metav1.Status)
	if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, status); err == nil {
		return &apierrors.StatusError{ErrStatus: *status}
	}
	return fmt.Errorf("the server does not upgrade to SPDY: %s: %s", resp.Status, strings.TrimSpace(string(body)))
}

// upgradedConn makes the body of a 101 response the net.Conn that a SPDY session asks for; of those methods
// that a body does not have, the session uses the addresses only, and for show.
type upgradedConn struct{ io.ReadWriteCloser }

func (upgradedConn) LocalAddr() net.Addr              { return podAddr("local") }
func (upgradedConn) RemoteAddr() net.Addr             { return podAddr("server") }
func (upgradedConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (upgradedConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (upgradedConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// podAddr is an address of something that has no address of its own.
type podAddr string

func (podAddr) Network() string  { return "port-forward" }
func (a podAddr) String() string { return string(a) }

// streamConn is a stream of a SPDY session as a net.Conn.
type streamConn struct {
	remote  podAddr
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
func openStream(ctx context.Context, session httpstream.Connection, raw io.Closer, pod string, port plan.Port) (*streamConn, error) {
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
		remote: podAddr(fmt.Sprintf("%s:%d", pod, port)), session: session, raw: raw,
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
	return lowerFirst(text)
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

func (c *streamConn) LocalAddr() net.Addr                { return podAddr("local") }
func (c *streamConn) RemoteAddr() net.Addr               { return c.remote }
func (c *streamConn) SetReadDeadline(t time.Time) error  { return c.in.SetReadDeadline(t) }
func (c *streamConn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

func (c *streamConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
