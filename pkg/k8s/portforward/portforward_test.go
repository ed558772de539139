package portforward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"

	"golang.org/x/net/nettest"
)

// forwarder is the part of an API server that forwards ports: every pod's ports are this machine's.
type forwarder struct {
	webSocket bool
	methods   chan string // of the requests that came

	mu      sync.Mutex // guards over, and serving's first Add after it
	over    bool
	serving sync.WaitGroup
}

// begin says whether to serve; whoever does calls serving.Done.
func (f *forwarder) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.over {
		f.serving.Add(1)
	}
	return !f.over
}

// end waits for all who serve.
func (f *forwarder) end() {
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	f.serving.Wait()
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/portforward") {
		http.NotFound(w, r)
		return
	}
	if !f.begin() {
		return
	}
	defer f.serving.Done()
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

func startForwarder(t *testing.T, webSocket bool) (*Dialer, *url.URL, *forwarder) {
	t.Helper()
	f := &forwarder{webSocket: webSocket, methods: make(chan string, 1000)}
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.Close()
		f.end()
	})
	return New(&rest.Config{Host: server.URL}), podURL(t, server.URL), f
}

func podURL(t *testing.T, server string) *url.URL {
	t.Helper()
	u, err := url.Parse(server + "/api/v1/namespaces/default/pods/web/portforward")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func port(t *testing.T, addr net.Addr) uint16 {
	t.Helper()
	return netip.MustParseAddrPort(addr.String()).Port()
}

// forwarded is a connection through a port-forward, and the pod's end of it.
func forwarded(t *testing.T, d *Dialer, u *url.URL) (client, pod net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = d.Dial(t.Context(), u, port(t, l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	pod, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, pod
}

func TestIsConn(t *testing.T) {
	t.Parallel()
	for name, webSocket := range map[string]bool{"websocket": true, "spdy": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, u, _ := startForwarder(t, webSocket)
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				client, pod := forwarded(t, d, u)
				return client, pod, func() {
					client.Close()
					pod.Close()
				}, nil
			})
		})
	}
}

func TestHalfCloses(t *testing.T) {
	t.Parallel()
	d, u, _ := startForwarder(t, true)
	client, pod := forwarded(t, d, u)
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

func TestRemembersThatThereIsNoWebSocket(t *testing.T) {
	t.Parallel()
	d, u, f := startForwarder(t, false)
	for range 2 {
		client, pod := forwarded(t, d, u)
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

func TestTellsWhatFailed(t *testing.T) {
	t.Parallel()
	d, u, _ := startForwarder(t, true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := port(t, l.Addr())
	l.Close()
	conn, err := d.Dial(t.Context(), u, closed)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	if err == nil || !strings.Contains(err.Error(), "nothing listens on that port in the pod") {
		t.Errorf("read: %v", err)
	}
}

func TestTellsThatTheServerIsGone(t *testing.T) {
	t.Parallel()
	f := &forwarder{webSocket: true, methods: make(chan string, 10)}
	server := httptest.NewServer(f)
	d, u := New(&rest.Config{Host: server.URL}), podURL(t, server.URL)
	server.Close()
	if _, err := d.Dial(t.Context(), u, 80); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialling: %v", err)
	}
}

func TestDialEndsWithContext(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	d, u := New(&rest.Config{}), podURL(t, "http://"+silent.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.Dial(ctx, u, 80); err == nil {
		t.Error("a silent server was connected to")
	}
}
