package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/telepresence/telepresence/pkg/doctor"
	"github.com/telepresence/telepresence/pkg/k8s"
)

// TestJSON holds what programs read to the last key: whoever changes one breaks
// somebody's script.
func TestJSON(t *testing.T) {
	t.Parallel()
	sessions := shop()
	for i := range sessions.sessions {
		sessions.sessions[i].Since = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	}
	const web = `  {
    "id": "a1",
    "namespace": "shop",
    "workload": "deployment/web",
    "container": "app",
    "owner": "ann@laptop",
    "since": "2026-01-02T15:04:05Z",
    "alive": true
  }`
	const gone = `  {
    "id": "b2",
    "namespace": "shop",
    "workload": "statefulset/db",
    "container": "app",
    "owner": "ann@laptop",
    "since": "2026-01-02T15:04:05Z",
    "alive": false
  }`
	const broken = `  {
    "id": "c3",
    "namespace": "shop",
    "workload": "deployment/api",
    "container": "app",
    "owner": "ann@laptop",
    "since": "2026-01-02T15:04:05Z",
    "alive": false,
    "problem": "its undo record is no JSON"
  }`
	system := fmt.Sprintf("  \"go\": %q,\n  \"system\": %q\n}\n", runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
	for _, tt := range []struct{ line, environ, want string }{
		{"list --output json", "", "[\n" + web + ",\n" + gone + ",\n" + broken + "\n]\n"},
		{"leave statefulset/db --output json", "", "T: putting back statefulset/db\nT: statefulset/db is back as it was\n[\n" + gone + "\n]\n"},
		{"version --output json", "A=B", "{\n  \"version\": \"dev\",\n  \"agentImage\": \"docker.io/telepresence/telepresence-agent:dev\",\n" + system},
		{"version --output json", "TELEPRESENCE_AGENT_VERSION=1.2", "{\n  \"version\": \"dev\",\n  \"agentImage\": \"docker.io/telepresence/telepresence-agent:dev\",\n  \"agent\": \"1.2\",\n" + system},
	} {
		c := newCall(t, tt.environ)
		c.connect = func(k8s.Config) (cluster, error) { return sessions, nil }
		if code := c.run(strings.Fields(tt.line)); code != 0 || c.stderr.String() != tt.want {
			t.Errorf("%s: exit code %d\n got %s\nwant %s", tt.line, code, &c.stderr, tt.want)
		}
	}
}

// TestDoctorJSON does the same for the findings.
func TestDoctorJSON(t *testing.T) {
	t.Parallel()
	c := newCall(t)
	c.settings.output = "json"
	findings := runChecks(t.Context(), []checkGroup{{title: "cluster", checks: []doctor.Check{
		{Name: "server", Run: holds("v1.34.4")},
		{Name: "namespace", Run: breaks(errors.New("there is none")), Fix: "make one"},
	}}})
	if err := c.showFindings(findings); err != nil {
		t.Fatal(err)
	}
	const want = `[
  {
    "group": "cluster",
    "check": "server",
    "ok": true,
    "detail": "v1.34.4"
  },
  {
    "group": "cluster",
    "check": "namespace",
    "ok": false,
    "fault": "there is none",
    "fix": "make one"
  }
]
`
	if got := c.stderr.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
