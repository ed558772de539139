package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telepresence/telepresence/pkg/session"
)

const configText = `
namespace: from-file
method: vpn-tcp
also-proxy: [10.0.0.0/8, db.example.com]
contexts:
  prod:
    namespace: from-prod
    image-cache: true
  dev:
    also-proxy: 192.0.2.1
`

// TestPrecedence checks flag before environment before the context's section
// before the file.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		line    string
		environ []string
		want    func(*session.Options) bool
	}{
		{"file", "", nil, func(o *session.Options) bool {
			return o.Namespace == "from-file" && o.Method == session.MethodVPNTCP && len(o.AlsoProxy) == 2
		}},
		{"context", "--context prod", nil, func(o *session.Options) bool {
			return o.Namespace == "from-prod" && o.Method == session.MethodVPNTCP
		}},
		{"context by environment", "", []string{"TELEPRESENCE_CONTEXT=prod"}, func(o *session.Options) bool {
			return o.Context == "prod" && o.Namespace == "from-prod"
		}},
		{"another context", "--context dev", nil, func(o *session.Options) bool {
			return o.Namespace == "from-file" && strings.Join(o.AlsoProxy, " ") == "192.0.2.1"
		}},
		{"environment", "--context prod", []string{"TELEPRESENCE_NAMESPACE=from-environ"}, func(o *session.Options) bool {
			return o.Namespace == "from-environ"
		}},
		{"an empty variable is none", "", []string{"TELEPRESENCE_NAMESPACE="}, func(o *session.Options) bool {
			return o.Namespace == "from-file"
		}},
		{"a list by environment", "", []string{"TELEPRESENCE_ALSO_PROXY=a,b"}, func(o *session.Options) bool {
			return strings.Join(o.AlsoProxy, " ") == "a b"
		}},
		{"flag", "--context prod --namespace from-flag --also-proxy c", []string{"TELEPRESENCE_NAMESPACE=from-environ"}, func(o *session.Options) bool {
			return o.Namespace == "from-flag" && strings.Join(o.AlsoProxy, " ") == "c"
		}},
		{"the image cache", "--context prod", nil, func(o *session.Options) bool { return o.ImageCache }},
		{"the image cache of another context", "", nil, func(o *session.Options) bool { return !o.ImageCache }},
		{"the image cache by environment", "", []string{"TELEPRESENCE_IMAGE_CACHE=true"}, func(o *session.Options) bool { return o.ImageCache }},
		{"no image cache by flag", "--context prod --image-cache=false", nil, func(o *session.Options) bool { return !o.ImageCache }},
		{"a session's own variable is no option", "", []string{"TELEPRESENCE_METHOD=container"}, func(o *session.Options) bool {
			return o.Method == session.MethodVPNTCP
		}},
		{"the method gives way to --docker-run", "--docker-run node", nil, func(o *session.Options) bool {
			return o.Method == session.MethodContainer
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(configText), 0o600); err != nil {
				t.Fatal(err)
			}
			c := newCall(t, append(tt.environ, "TELEPRESENCE_CONFIG="+path)...)
			if code := c.run(strings.Fields(tt.line)); code != 0 {
				t.Fatalf("exit code %d: %s", code, &c.stderr)
			}
			if !tt.want(&c.got) {
				t.Errorf("got %+v", c.got)
			}
		})
	}
}

// FuzzConfig checks that no file makes the parser panic, and that what it
// accepts, it accepts again.
func FuzzConfig(f *testing.F) {
	f.Add(configText)
	f.Add("contexts: {a: {namespace: b}}")
	f.Add("a: &x [*x]")
	f.Fuzz(func(t *testing.T, text string) {
		rows := flagTable()
		first, err := parseConfig("f", []byte(text), rows)
		again, errAgain := parseConfig("f", []byte(text), rows)
		if (err == nil) != (errAgain == nil) || len(first.settings) != len(again.settings) {
			t.Errorf("%v, then %v", err, errAgain)
		}
	})
}
