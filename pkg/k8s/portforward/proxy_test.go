package portforward

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// connectProxy is an HTTP proxy that knows CONNECT.
func connectProxy(asked chan<- string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		asked <- r.Host
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n") //nolint:errcheck // seen by the client
		var copying sync.WaitGroup
		copying.Go(func() {
			io.Copy(there, here) //nolint:errcheck // seen by the client
			there.Close()
		})
		io.Copy(here, there) //nolint:errcheck // seen by the client
		here.Close()
		copying.Wait()
	})
}

func TestThroughProxies(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &forwarder{webSocket: true, methods: make(chan string, 10)}
			server := httptest.NewTLSServer(f)
			asked := make(chan string, 10)
			proxy := start(connectProxy(asked))
			t.Cleanup(func() {
				proxy.CloseClientConnections()
				server.CloseClientConnections()
				proxy.Close()
				server.Close()
				f.end()
			})
			via, err := url.Parse(proxy.URL)
			if err != nil {
				t.Fatal(err)
			}
			ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
			d := New(&rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{CAData: ca}, Proxy: http.ProxyURL(via)})
			client, pod := forwarded(t, d, podURL(t, server.URL))
			defer pod.Close()
			defer client.Close()
			if _, err := client.Write([]byte("ping")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			if _, err := io.ReadFull(pod, got); err != nil || string(got) != "ping" {
				t.Errorf("the pod read %q, %v", got, err)
			}
			if host := <-asked; "https://"+host != server.URL {
				t.Errorf("the proxy was asked for %s", host)
			}
		})
	}
}
