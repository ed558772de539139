package load

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name, provider string, labels ...string) corev1.Node {
	n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}, Spec: corev1.NodeSpec{ProviderID: provider}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		n.Labels[k] = v
	}
	return n
}

func TestPlan(t *testing.T) {
	t.Parallel()
	const into = " ctr --namespace k8s.io images import - < a.tar"
	for _, tt := range []struct {
		what  string
		nodes []corev1.Node
		want  []string // or the error
	}{
		{"kind", []corev1.Node{node("kind-control-plane", "kind://docker/kind/kind-control-plane"), node("kind-worker", "kind://docker/kind/kind-worker")},
			[]string{"docker exec --interactive kind-control-plane" + into, "docker exec --interactive kind-worker" + into}},
		{"kind with podman", []corev1.Node{node("x-control-plane", "kind://podman/x/x-control-plane")},
			[]string{"podman exec --interactive x-control-plane" + into}},
		{"kind with something else", []corev1.Node{node("x", "kind://rm/x/x")}, []string{"node x (kind://rm/x/x)"}},
		{"k3d", []corev1.Node{node("k3d-dev-server-0", "k3s://k3d-dev-server-0"), node("k3d-dev-agent-0", "k3s://k3d-dev-agent-0")},
			[]string{"docker exec --interactive k3d-dev-server-0" + into, "docker exec --interactive k3d-dev-agent-0" + into}},
		{"k3s", []corev1.Node{node("box", "k3s://box")}, []string{"node box (k3s://box)"}},
		{"minikube, two nodes of one profile", []corev1.Node{node("dev", "", "minikube.k8s.io/name=dev"), node("dev-m02", "", "minikube.k8s.io/name=dev")},
			[]string{"minikube --profile dev image load a.tar"}},
		{"Docker Desktop", []corev1.Node{node("docker-desktop", "")}, []string{"docker load --quiet --input a.tar"}},
		{"Docker Desktop with several nodes", []corev1.Node{
			node("desktop-control-plane", "kind://docker/desktop/desktop-control-plane"), node("desktop-worker", "kind://docker/desktop/desktop-worker"),
		}, []string{"docker load --quiet --input a.tar"}},
		{"a cloud", []corev1.Node{node("ip-10-0-0-1", "aws:///eu-central-1a/i-0123")}, []string{"node ip-10-0-0-1 (aws:///eu-central-1a/i-0123)"}},
		{"one node that is elsewhere", []corev1.Node{node("kind-worker", "kind://docker/kind/kind-worker"), node("far", "")}, []string{"node far is not"}},
	} {
		steps, err := Plan(tt.nodes, "a.tar")
		var got []string
		for _, s := range steps {
			line := strings.Join(s.Args, " ")
			if s.Stdin {
				line += " < a.tar"
			}
			got = append(got, line)
		}
		unknown := (*UnknownError)(nil)
		if errors.As(err, &unknown) {
			got = []string{err.Error()[:min(len(err.Error()), len(tt.want[0]))]}
		}
		if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%s:\n got %q, %v\nwant %q", tt.what, got, err, tt.want)
		}
	}
}

// write writes a file of the test's.
func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRun(t *testing.T) {
	t.Parallel()
	archive := write(t, "an archive", 0o600)
	out := filepath.Join(t.TempDir(), "out")
	var said []string
	err := Run(t.Context(), []Step{
		{Into: "one", Args: []string{"sh", "-c", `cat >"$0"`, out}, Stdin: true},
		With("cp --target-directory "+t.TempDir(), archive),
	}, archive, func(line string) { said = append(said, line) })
	got, readErr := os.ReadFile(out)
	if err != nil || readErr != nil || string(got) != "an archive" {
		t.Errorf("the program got %q, %v, %v", got, err, readErr)
	}
	if want := "loading the image into one|loading the image into the cluster"; strings.Join(said, "|") != want {
		t.Errorf("said %q", said)
	}
	err = Run(t.Context(), []Step{
		{Into: "node a", Args: []string{"sh", "-c", "echo no such container >&2; exit 3"}},
		{Into: "node b", Args: []string{"sh", "-c", `touch "$0"`, out + "2"}},
	}, archive, func(string) {})
	if err == nil || !strings.HasPrefix(err.Error(), "loading the image into node a: sh -c ") || !strings.HasSuffix(err.Error(), "exit status 3: no such container") {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(out + "2"); err == nil {
		t.Error("it went on after a failure")
	}
}
