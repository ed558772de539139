package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/telepresence/telepresence/pkg/k8s"
	"github.com/telepresence/telepresence/pkg/k8s/undo"
)

// fakeCluster is a namespace with sessions in it.
type fakeCluster struct {
	sessions []k8s.Session
	restored []string // the ids of restored records, in order
	stuck    string   // the id of the session that can't be restored
}

func (f *fakeCluster) Namespace() string { return "shop" }

func (f *fakeCluster) Sessions(context.Context, bool) ([]k8s.Session, error) { return f.sessions, nil }

func (f *fakeCluster) Restore(_ context.Context, r undo.Record, _ k8s.Tell) error {
	if r.Session == f.stuck {
		return errors.New("forbidden")
	}
	f.restored = append(f.restored, r.Session)
	return nil
}

func (f *fakeCluster) Namespaces(context.Context) ([]string, error) {
	return []string{"shop", "stage"}, nil
}

func (f *fakeCluster) Targets(_ context.Context, prefix string) ([]string, error) {
	return []string{prefix + "eb"}, nil
}

// shop is three sessions: one in use, one whose client is gone, one that
// nobody can read.
func shop() *fakeCluster {
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.Local)
	make := func(id, workload string, alive bool) k8s.Session {
		return k8s.Session{
			ID: id, Namespace: "shop", Workload: workload, Container: "app", Owner: "ann@laptop",
			Since: at, Alive: alive, Record: undo.Record{Session: id},
		}
	}
	broken := make("c3", "deployment/api", false)
	broken.Problem, broken.Record = "its undo record is no JSON", undo.Record{}
	return &fakeCluster{sessions: []k8s.Session{make("a1", "deployment/web", true), make("b2", "statefulset/db", false), broken}}
}

// TestList checks the table.
func TestList(t *testing.T) {
	t.Parallel()
	const table = `NAMESPACE   WORKLOAD         CONTAINER   OWNER        SINCE                 STATE
shop        deployment/web   app         ann@laptop   2026-01-02 15:04:05   in use
shop        statefulset/db   app         ann@laptop   2026-01-02 15:04:05   gone
shop        deployment/api   app         ann@laptop   2026-01-02 15:04:05   its undo record is no JSON
`
	for _, tt := range []struct {
		line    string
		cluster *fakeCluster
		want    string
	}{
		{"list", shop(), table},
		{"list", &fakeCluster{}, "T: there are no sessions in namespace shop\n"},
		{"list -A", &fakeCluster{}, "T: there are no sessions\n"},
		{"list -o json", &fakeCluster{}, "[]\n"},
	} {
		c := newCall(t)
		c.connect = func(k8s.Config) (cluster, error) { return tt.cluster, nil }
		if code := c.run(strings.Fields(tt.line)); code != 0 || c.stderr.String() != tt.want {
			t.Errorf("%s: exit code %d\n got %q\nwant %q", tt.line, code, &c.stderr, tt.want)
		}
	}
}

// TestLeave checks who is meant by a name, and what is said.
func TestLeave(t *testing.T) {
	t.Parallel()
	const inUse = "T: warning: deployment/web is in use by ann@laptop, whose session ends\n"
	for _, tt := range []struct {
		line     string
		stuck    string
		code     int
		restored string
		want     string
	}{
		{"leave web", "", 0, "a1", inUse + "T: putting back deployment/web\nT: deployment/web is back as it was\n"},
		{"leave statefulset/db", "", 0, "b2", "T: putting back statefulset/db\nT: statefulset/db is back as it was\n"},
		{"leave b2", "", 0, "b2", "T: putting back statefulset/db\nT: statefulset/db is back as it was\n"},
		{"leave deployment/db", "", 255, "", "T: there is no session on deployment/db in namespace shop\nT: hint: there are sessions on deployment/web, statefulset/db, deployment/api\n"},
		{"leave api", "", 255, "", "T: leaving deployment/api: its undo record is no JSON\n"},
		{"leave db", "b2", 255, "", "T: putting back statefulset/db\nT: leaving statefulset/db: forbidden\n"},
		{"leave --all", "a1", 255, "b2", inUse + "T: putting back deployment/web\nT: putting back statefulset/db\nT: statefulset/db is back as it was\nT: leaving deployment/web: forbidden\nT: leaving deployment/api: its undo record is no JSON\n"},
		{"leave", "", 2, "", "T: leave wants the name of a workload, or --all\nT: hint: telepresence list shows what there is\n"},
		{"leave web --all", "", 2, "", "T: leave wants the name of a workload, or --all\nT: hint: telepresence list shows what there is\n"},
		{"leave web db", "", 2, "", "T: unexpected argument \"db\"\nT: hint: see telepresence leave --help\n"},
	} {
		c, f := newCall(t), shop()
		f.stuck = tt.stuck
		c.connect = func(k8s.Config) (cluster, error) { return f, nil }
		code := c.run(strings.Fields(tt.line))
		if code != tt.code || strings.Join(f.restored, " ") != tt.restored || c.stderr.String() != tt.want {
			t.Errorf("%s: exit code %d, restored %s\n got %q\nwant %q", tt.line, code, f.restored, &c.stderr, tt.want)
		}
	}
}

// TestProposals checks what a shell gets from the cluster that the line names.
func TestProposals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ line, namespace, want string }{
		{"--swap-deployment w", "", "web"},
		{"--namespace=stage -s w", "stage", "web"},
		{"--namespace s", "", "shop stage"},
		{"leave ", "", "deployment/web statefulset/db deployment/api"},
		{"leave web ", "", ""},
	} {
		c := newCall(t)
		var asked k8s.Config
		c.connect = func(cfg k8s.Config) (cluster, error) {
			asked = cfg
			return shop(), nil
		}
		var out strings.Builder
		root := c.newRoot()
		root.SetOut(&out)
		root.SetErr(&strings.Builder{})
		root.SetArgs(append([]string{"__complete"}, strings.Split(tt.line, " ")...))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		words := strings.Fields(out.String())
		if got := strings.Join(words[:len(words)-1], " "); got != tt.want || asked.Namespace != tt.namespace {
			t.Errorf("%s: got %q in namespace %q, want %q in %q", tt.line, got, asked.Namespace, tt.want, tt.namespace)
		}
	}
}
