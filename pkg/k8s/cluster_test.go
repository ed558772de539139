package k8s

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// seen is a server that says it is an API server, and remembers the last request.
type seen struct {
	mu   sync.Mutex // guards last
	last *http.Request
}

func (s *seen) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r
	w.Header().Set("Content-Type", "application/json")
	w.Write([]byte(`{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop"},"gitVersion":"v1.34.4"}`)) //nolint:errcheck // the client sees
}

func (s *seen) request() *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// useKubeconfigs makes files of the texts and KUBECONFIG of the files.
func useKubeconfigs(t *testing.T, texts ...string) []string {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	var files []string
	for i, text := range texts {
		file := filepath.Join(t.TempDir(), "config-"+string(rune('a'+i)))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	t.Setenv("KUBECONFIG", strings.Join(files, string(os.PathListSeparator)))
	return files
}

// kubeconfigOf is a file of one cluster, user and context of that name; cluster and user are more lines of their entries.
func kubeconfigOf(name, server, cluster, user string) string {
	return `apiVersion: v1
kind: Config
current-context: ` + name + `
clusters:
- name: ` + name + `
  cluster:
    server: ` + server + cluster + `
users:
- name: ` + name + `
  user:` + user + `
contexts:
- name: ` + name + `
  context: {cluster: ` + name + `, user: ` + name + `, namespace: shop}
`
}

func TestConnectWithEveryKindOfKubeconfig(t *testing.T) {
	s := &seen{}
	plain, secure := httptest.NewServer(s), httptest.NewTLSServer(s)
	defer plain.Close()
	defer secure.Close()
	plugin := filepath.Join(t.TempDir(), "plugin")
	script := "#!/bin/sh\necho '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":{\"token\":\"from-plugin\"}}'\n"
	if err := os.WriteFile(plugin, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	trusted := "\n    certificate-authority: " + ca
	tests := map[string]struct {
		cluster, server, user string
		config                Config
		check                 func(*http.Request) bool
	}{
		"token":           {server: secure.URL, cluster: trusted, user: " {token: secret}", check: func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer secret" }},
		"exec plugin":     {server: secure.URL, cluster: trusted, user: "\n    exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: " + plugin + "}", check: func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer from-plugin" }},
		"proxy-url":       {server: "http://cluster.invalid", cluster: "\n    proxy-url: " + plain.URL, user: " {}", check: func(r *http.Request) bool { return r.Host == "cluster.invalid" }},
		"tls-server-name": {server: secure.URL, cluster: trusted + "\n    tls-server-name: example.com", user: " {}", check: func(r *http.Request) bool { return r.TLS.ServerName == "example.com" }},
		"impersonation": {
			server: plain.URL, user: " {}", config: Config{As: "bob", AsGroups: []string{"dev", "ops"}},
			check: func(r *http.Request) bool {
				return r.Header.Get("Impersonate-User") == "bob" && slices.Equal(r.Header.Values("Impersonate-Group"), []string{"dev", "ops"})
			},
		},
		"impersonation of the kubeconfig's": {server: plain.URL, user: " {as: eve}", check: func(r *http.Request) bool { return r.Header.Get("Impersonate-User") == "eve" }},
		"another namespace":                 {server: plain.URL, user: " {}", config: Config{Namespace: "other"}, check: func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/namespaces/other") }},
		"the context's namespace":           {server: plain.URL, user: " {}", check: func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/namespaces/shop") }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			useKubeconfigs(t, kubeconfigOf("prod", test.server, test.cluster, test.user))
			c, err := Connect(test.config)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r := s.request(); !test.check(r) {
				t.Errorf("%s %s, %v", r.Host, r.URL, r.Header)
			}
			closeIdle(c)
		})
	}
}

// closeIdle ends the connections that client-go's cache of transports would keep.
func closeIdle(c *Cluster) {
	if transport, err := rest.TransportFor(c.config); err == nil {
		(&http.Client{Transport: transport}).CloseIdleConnections()
	}
}

func TestConnectWithSeveralFiles(t *testing.T) {
	files := useKubeconfigs(t, kubeconfigOf("prod", "http://prod", "", " {}"), kubeconfigOf("test", "http://test", "", " {}"))
	for want, asked := range map[string]string{"prod": "", "test": "test"} {
		c, err := Connect(Config{Context: asked})
		if err != nil || c.Context() != want || c.Server() != "http://"+want || c.Namespace() != "shop" {
			t.Errorf("asked for %q: %+v, %v", asked, c, err)
		}
	}
	contexts, err := Contexts()
	if err != nil || !slices.Equal(contexts, []string{"prod", "test"}) {
		t.Errorf("contexts %q, %v", contexts, err)
	}
	_, err = Connect(Config{Context: "staging"})
	if want := `there is no context "staging" in ` + files[0] + ", " + files[1] + "; there are: prod, test"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestConnectSaysWhatIsMissing(t *testing.T) {
	whole := kubeconfigOf("prod", "http://prod", "", " {}")
	tests := map[string]struct{ text, want string }{
		"nothing":                 {"", "no cluster is configured in "},
		"no current context":      {strings.Replace(whole, "current-context: prod", "", 1), "has no current context; there are: prod"},
		"unknown current context": {strings.Replace(whole, "current-context: prod", "current-context: old", 1), `the current context "old" is not in `},
		"missing certificate":     {kubeconfigOf("prod", "https://prod", "\n    certificate-authority: /no/such/ca.crt", " {}"), "/no/such/ca.crt"},
		"no YAML":                 {"{", "reading the kubeconfig: "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			useKubeconfigs(t, test.text)
			if _, err := Connect(Config{}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestCheckNamesTheNamespacesThereAre(t *testing.T) {
	t.Parallel()
	s, c := startAPIServer(t)
	s.put(t, "/version", map[string]any{"gitVersion": "v1.34.4"})
	s.put(t, "/api/v1/namespaces/shop", &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	err := c.Check(t.Context())
	if want := `there is no namespace "ns" in context "test"; there are: shop`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := c.In("shop").Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestThereAreCutsLongLists(t *testing.T) {
	t.Parallel()
	names := strings.Split("a b c d e f g h i j k l m n", " ")
	if got, want := thereAre(names), "; there are: a, b, c, d, e, f, g, h, i, j, k, l and 2 more"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestClockIsTheServers(t *testing.T) {
	t.Parallel()
	ahead := time.Now().Add(time.Hour)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", ahead.UTC().Format(http.TimeFormat))
	}))
	defer server.Close()
	c, err := connect(&rest.Config{Host: server.URL}, "test", "ns")
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Until(c.clock.Now()); off.Abs() > time.Minute {
		t.Errorf("before the first answer the clock is off by %s", off)
	}
	if err := c.core.Discovery().RESTClient().Get().AbsPath("/version").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	if off := c.clock.Now().Sub(ahead); off.Abs() > time.Minute {
		t.Errorf("off by %s", off)
	}
}
