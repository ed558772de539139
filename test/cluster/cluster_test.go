package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCluster starts a cluster of its own, lets it grow, breaks it and stops it,
// and compares the machine before and after.
func TestCluster(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a cluster needs root: sudo make test-cluster")
	}
	if names := missing(packages); len(names) > 0 {
		t.Skipf("missing packages (make setup installs them): %v", names)
	}
	state := filepath.Join(t.TempDir(), "state")
	before := machineState(t, state)
	t.Cleanup(func() { runCluster(t, state, "stop") })

	runCluster(t, state, "start", "--nodes", "1")
	runCluster(t, state, "start", "--nodes", "1") // again: nothing to do
	kubectl := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(state, "bin", "kubectl"), args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(state, "admin.kubeconfig"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if nodes := kubectl("get", "nodes", "--output=name"); nodes != "node/node1\n" {
		t.Errorf("nodes are %q", nodes)
	}
	runCluster(t, state, "add")
	kubectl("wait", "--for=condition=Ready", "node/node2", "--timeout=120s")

	loadAndAdd(t, state)
	user := runCluster(t, state, "kubeconfig", "edit", "try", "ada")
	if !strings.Contains(user, "client-certificate-data") {
		t.Errorf("a user's kubeconfig is\n%s", user)
	}
	runCluster(t, state, "kill", "node2")
	await(t, "the API server to answer without node2", func() error {
		cmd := exec.CommandContext(t.Context(), filepath.Join(state, "bin", "kubectl"), "get", "nodes", "--request-timeout=5s")
		cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(state, "admin.kubeconfig"))
		return cmd.Run()
	})

	runCluster(t, state, "stop")
	runCluster(t, state, "stop")
	if after := machineState(t, state); !slices.Equal(before, after) {
		t.Errorf("left behind, or taken away:\n%s", difference(before, after))
	}
}

// loadAndAdd loads an image: it is on the nodes that run, and on one that comes
// later, the third.
func loadAndAdd(t *testing.T, state string) {
	t.Helper()
	tar := filepath.Join(t.TempDir(), "one.tar")
	program := filepath.Join(t.TempDir(), "one")
	if err := os.WriteFile(program, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeImage(tar, "cluster.test/one:1", program); err != nil {
		t.Fatal(err)
	}
	runCluster(t, state, "load", tar)
	runCluster(t, state, "add")
	for _, node := range []string{"node1", "node2", "node3"} {
		images := runCluster(t, state, "exec", node, "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
		if !strings.Contains(images, "cluster.test/one:1\n") {
			t.Errorf("%s has not the image that was loaded:\n%s", node, images)
		}
	}
}

// await tries again and again until there is no error.
func await(t *testing.T, what string, try func() error) {
	t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

func runCluster(t *testing.T, state string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "./cluster", args...)
	cmd.Env = append(os.Environ(), "CLUSTER_STATE="+state)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("cluster %v: %v\n%s", args, err, stderr.String())
	}
	return stdout.String()
}

// machineState is what a cluster could leave behind of itself: interfaces, packet
// filter rules, control groups of its kind, mounts and processes with its folder in
// their names.
func machineState(t *testing.T, state string) []string {
	t.Helper()
	links, err := exec.CommandContext(t.Context(), "ip", "-brief", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(links)) {
		found = append(found, "link "+strings.Fields(line)[0])
	}
	rules, err := exec.CommandContext(t.Context(), "iptables-save").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(rules)) {
		if strings.HasPrefix(line, "-A") {
			found = append(found, "rule "+strings.TrimSpace(line))
		}
	}
	roots, err := cgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range roots {
		groups, _ := filepath.Glob(filepath.Join(root, "tpc*"))
		for _, group := range groups {
			found = append(found, "control group "+group)
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, state) {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte(state)) {
			found = append(found, "process "+strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	slices.Sort(found)
	return found
}

// difference is what is in one list only.
func difference(before, after []string) string {
	var lines []string
	for _, b := range before {
		if !slices.Contains(after, b) {
			lines = append(lines, "- "+b)
		}
	}
	for _, a := range after {
		if !slices.Contains(before, a) {
			lines = append(lines, "+ "+a)
		}
	}
	return strings.Join(lines, "\n")
}
