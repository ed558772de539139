package k8s

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"

	"golang.org/x/net/nettest"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// forwarder is the part of an API server that forwards ports: every pod's ports are this machine's.
type forwarder struct {
	webSocket bool
	methods   chan string // of the requests that came
	serving   sync.WaitGroup
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/portforward") {
		http.NotFound(w, r)
		return
	}
	f.methods <- r.Method
	if !websocket.IsWebSocketUpgrade(r) {
		if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
			return
		}
		streams := make(chan httpstream.Stream, 10)
		conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, f.queue(streams))
		f.serve(conn, streams)
		return
	}
	if !f.webSocket {
		http.Error(w, "no such upgrade", http.StatusBadRequest)
		return
	}
	upgrader := websocket.Upgrader{Subprotocols: []string{tunnelled}}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 10)
	conn, err := spdy.NewServerConnection(portforward.NewTunnelingConnection("server", ws), f.queue(streams))
	if err != nil {
		return
	}
	f.serve(conn, streams)
	ws.Close()
}

func (f *forwarder) queue(streams chan<- httpstream.Stream) httpstream.NewStreamHandler {
	return func(stream httpstream.Stream, _ <-chan struct{}) error {
		streams <- stream
		return nil
	}
}

// serve forwards one pair of streams, as the kubelet does.
func (f *forwarder) serve(conn httpstream.Connection, streams <-chan httpstream.Stream) {
	f.serving.Add(1)
	defer f.serving.Done()
	var data, failure httpstream.Stream
	for data == nil || failure == nil {
		select {
		case s := <-streams:
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				failure = s
			} else {
				data = s
			}
		case <-conn.CloseChan():
			return
		}
	}
	f.forward(data, failure)
	data.Reset()    //nolint:errcheck // or what comes for it would hold up the session
	failure.Reset() //nolint:errcheck // the same
	<-conn.CloseChan()
}

func (f *forwarder) forward(data, failure httpstream.Stream) {
	defer data.Close()
	defer failure.Close()
	pod, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", data.Headers().Get(corev1.PortHeader)))
	if err != nil {
		io.WriteString(failure, "error forwarding port: "+err.Error()) //nolint:errcheck // seen by the test
		return
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		io.Copy(pod, data) //nolint:errcheck // seen by the test
		pod.(*net.TCPConn).CloseWrite()
	})
	io.Copy(data, pod) //nolint:errcheck // seen by the test
	data.Close()
	copying.Wait()
	pod.Close()
}

func startForwarder(t *testing.T, webSocket bool) (*Cluster, *forwarder) {
	t.Helper()
	f := &forwarder{webSocket: webSocket, methods: make(chan string, 1000)}
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.Close()
		f.serving.Wait()
	})
	c, err := connect(&rest.Config{Host: server.URL}, "test", "default")
	if err != nil {
		t.Fatal(err)
	}
	return c, f
}

func port(t *testing.T, addr net.Addr) plan.Port {
	t.Helper()
	return plan.Port(netip.MustParseAddrPort(addr.String()).Port())
}

// forwarded is a connection through a port-forward, and the pod's end of it.
func forwarded(t *testing.T, c *Cluster) (client, pod net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = c.PortForward(t.Context(), "web", port(t, l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	pod, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, pod
}

func TestPortForwardIsConn(t *testing.T) {
	t.Parallel()
	for name, webSocket := range map[string]bool{"websocket": true, "spdy": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := startForwarder(t, webSocket)
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				client, pod := forwarded(t, c)
				return client, pod, func() {
					client.Close()
					pod.Close()
				}, nil
			})
		})
	}
}

func TestPortForwardHalfCloses(t *testing.T) {
	t.Parallel()
	c, _ := startForwarder(t, true)
	client, pod := forwarded(t, c)
	defer client.Close()
	defer pod.Close()
	question, answer := bytes.Repeat([]byte("question "), 100_000), bytes.Repeat([]byte("answer "), 100_000)
	var asking sync.WaitGroup
	asking.Go(func() {
		if _, err := client.Write(question); err != nil {
			t.Error(err)
		}
		if err := client.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	asking.Go(func() {
		got, err := io.ReadAll(pod)
		if err != nil || !bytes.Equal(got, question) {
			t.Errorf("the pod read %d bytes, %v", len(got), err)
		}
		if _, err := pod.Write(answer); err != nil {
			t.Error(err)
		}
		pod.Close()
	})
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, answer) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	asking.Wait()
}

func TestPortForwardRemembersThatThereIsNoWebSocket(t *testing.T) {
	t.Parallel()
	c, f := startForwarder(t, false)
	for range 2 {
		client, pod := forwarded(t, c)
		client.Close()
		pod.Close()
	}
	close(f.methods)
	var got []string
	for m := range f.methods {
		got = append(got, m)
	}
	if want := "GET POST POST"; strings.Join(got, " ") != want {
		t.Errorf("requests %q, want %q", got, want)
	}
}

func TestPortForwardTellsWhatFailed(t *testing.T) {
	t.Parallel()
	c, _ := startForwarder(t, true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := port(t, l.Addr())
	l.Close()
	conn, err := c.PortForward(t.Context(), "web", closed)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	if err == nil || !strings.Contains(err.Error(), "nothing listens on that port in the pod") {
		t.Errorf("read: %v", err)
	}
}

func TestPortForwardTellsThatTheServerIsGone(t *testing.T) {
	t.Parallel()
	f := &forwarder{webSocket: true, methods: make(chan string, 10)}
	server := httptest.NewServer(f)
	c, err := connect(&rest.Config{Host: server.URL}, "test", "default")
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	_, err = c.PortForward(t.Context(), "web", 80)
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || hinted.Hint() == "" || !strings.Contains(err.Error(), server.URL) {
		t.Errorf("dialling: %v", err)
	}
}

func TestPortForwardDialEndsWithContext(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c, err := connect(&rest.Config{Host: "http://" + silent.Addr().String()}, "test", "default")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.PortForward(ctx, "web", 80); err == nil {
		t.Error("a silent server was connected to")
	}
}
