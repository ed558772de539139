package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/images"
	"github.com/telepresence/telepresence/pkg/imagecache/load"
)

// TestLoadIntoContainer loads an image into what a node of kind is, and one of
// k3d: a container with a containerd in it. Its programs are this machine's.
func TestLoadIntoContainer(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"docker", "containerd", "ctr"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no program for a node: %v", err)
		}
	}
	if _, err := docker(t.Context(), "version"); err != nil {
		if os.Getenv("E2E") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	name := fmt.Sprintf("e2e-node-%d", os.Getpid())
	startNode(t, name)
	archive := filepath.Join(t.TempDir(), "image.tar")
	writeImage(t, archive, "registry.example/shop/cache:1")
	n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: "kind://docker/e2e/" + name}}
	steps, err := load.Plan([]corev1.Node{n}, archive)
	if err == nil {
		err = load.Run(t.Context(), steps, archive, func(line string) { t.Log(line) })
	}
	if err != nil {
		t.Fatal(err)
	}
	list, err := docker(t.Context(), "exec", name, "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
	if err != nil || !strings.Contains(list, "registry.example/shop/cache:1\n") {
		t.Errorf("the node has %q, %v", list, err)
	}
}

// startNode runs containerd in a container until the test is over.
func startNode(t *testing.T, name string) {
	t.Helper()
	image := os.Getenv("APP_IMAGE")
	if image == "" {
		image = "cluster.test/app:1"
	}
	// A node of kind is privileged; what containerd needs here is to mount.
	args := []string{
		"run", "--detach", "--rm", "--name", name, "--env", "PATH=/usr/bin:/usr/sbin:/bin:/sbin",
		"--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
	}
	for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if _, err := os.Stat(dir); err == nil {
			args = append(args, "--volume", dir+":"+dir+":ro")
		}
	}
	for _, dir := range []string{"/var/lib/containerd", "/run", "/tmp"} {
		args = append(args, "--tmpfs", dir)
	}
	if _, err := docker(t.Context(), append(args, "--entrypoint", "containerd", image)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := docker(context.WithoutCancel(t.Context()), "rm", "--force", name); err != nil {
			t.Error(err)
		}
	})
	err := until(func() error {
		_, err := docker(t.Context(), "exec", name, "ctr", "version")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// writeImage writes the archive of an image for two architectures.
func writeImage(t *testing.T, file, ref string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var both []v1.Image
	for _, architecture := range []string{"amd64", "arm64"} {
		img, err := images.Build(images.Spec{
			Architecture: architecture, Files: []images.File{{Path: "/" + architecture, Mode: 0o755, Content: []byte("x")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, img)
	}
	if err := images.WriteArchive(f, ref, both...); err != nil {
		t.Fatal(err)
	}
}

// docker runs the docker command.
func docker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
