// Package portforward connects to a port of a pod, through the API server, as a net.Conn: with deadlines and half-close, over WebSocket or
// SPDY, whichever the server and the proxies before it let through.
package portforward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/websocket"
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

// Dialer connects to the ports of pods. It is safe for concurrent use and needs no closing.
type Dialer struct {
	config *rest.Config
	noWS   atomic.Bool // WebSocket was refused once, and SPDY was not
}

// New makes a Dialer for the server of the config.
func New(config *rest.Config) *Dialer { return &Dialer{config: config} }

// Dial connects to a port on the pod's loopback; u is the pod's portforward sub-resource. ctx bounds the dialling only. That nothing listens
// there shows as an error of Read, for the kubelet connects when the stream is open already. The caller closes the net.Conn, which also
// has CloseWrite. Errors of the API server satisfy apierrors' tests.
func (d *Dialer) Dial(ctx context.Context, u *url.URL, port uint16) (net.Conn, error) {
	session, raw, err := d.dialSession(ctx, u)
	if err != nil {
		return nil, err
	}
	return openStream(ctx, session, raw, port)
}

// TryWebSocket says whether the server forwards ports over WebSocket. It connects to none of the pod's ports.
func (d *Dialer) TryWebSocket(ctx context.Context, u *url.URL) error {
	return try(d.dialWebSocket(ctx, u))
}

// TrySPDY says whether the server forwards ports over SPDY. It connects to none of the pod's ports.
func (d *Dialer) TrySPDY(ctx context.Context, u *url.URL) error { return try(d.dialSPDY(ctx, u)) }

func try(session httpstream.Connection, raw io.Closer, err error) error {
	if refused := (*httpstream.UpgradeFailureError)(nil); errors.As(err, &refused) {
		return refused.Cause
	}
	if err != nil {
		return err
	}
	raw.Close()
	<-session.CloseChan()
	return nil
}

// dialSession upgrades a request to a SPDY session: in a WebSocket first, then as it is.
func (d *Dialer) dialSession(ctx context.Context, u *url.URL) (httpstream.Connection, io.Closer, error) {
	if d.noWS.Load() {
		return d.dialSPDY(ctx, u)
	}
	session, raw, err := d.dialWebSocket(ctx, u)
	if err == nil || !httpstream.IsUpgradeFailure(err) && !httpstream.IsHTTPSProxyError(err) {
		return session, raw, err
	}
	session, raw, spdyErr := d.dialSPDY(ctx, u)
	if spdyErr != nil {
		return nil, nil, spdyErr
	}
	d.noWS.Store(true)
	return session, raw, nil
}

func (d *Dialer) dialWebSocket(ctx context.Context, u *url.URL) (httpstream.Connection, io.Closer, error) {
	transport, holder, err := websocket.RoundTripperFor(d.config)
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
func (d *Dialer) dialSPDY(ctx context.Context, u *url.URL) (httpstream.Connection, io.Closer, error) {
	config := rest.CopyConfig(d.config)
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

func (upgradedConn) LocalAddr() net.Addr              { return addr("local") }
func (upgradedConn) RemoteAddr() net.Addr             { return addr("server") }
func (upgradedConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (upgradedConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (upgradedConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
