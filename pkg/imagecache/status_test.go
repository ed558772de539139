package imagecache

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// Prometheus reads the node's figures by these names.
func TestMetrics(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, []string{"docker.io/shop/agent"}, "a", "b", "c")
	d := put(t, nodes["a"].node.cfg.Store, []byte("five!"))
	if _, err := pull(t.Context(), nodes["a"].node, d); err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	MetricsHandler(nodes["a"].node).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	form := regexp.MustCompile(`^(# HELP (\S+) [A-Z][^\n]*\.\n# TYPE (\S+) (gauge|counter)\n(\S+) [0-9]+\n)+$`)
	if !form.MatchString(answer.Body.String()) || !strings.HasPrefix(answer.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("it is of another form: %s", answer.Body)
	}
	for _, want := range []string{
		"blobs 1", "bytes 5", "peers 2", "received_from_peers_bytes_total 0", "received_from_origin_bytes_total 0", "sent_to_peers_bytes_total 0",
		"sent_to_runtime_bytes_total 5", "hits_total 1", "misses_total 0", "shunned_total 0",
	} {
		if !strings.Contains(answer.Body.String(), "\ntelepresence_imagecache_"+want+"\n") {
			t.Errorf("there is no %s in\n%s", want, answer.Body)
		}
	}
}
