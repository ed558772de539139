package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/telepresence/telepresence/images"
)

// TestAgentImage builds the agent's image from source, twice: the same bytes, and small enough.
func TestAgentImage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds four binaries")
	}
	t.Chdir("../..")
	var archives [][]byte
	for range 2 {
		out := filepath.Join(t.TempDir(), "agent.tar")
		if err := run(t.Context(), []string{"-o", out, "-version", "v1.2.3"}, io.Discard, os.Stderr); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, content)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two builds of the same source differ")
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archives[0])), nil })
	if err != nil || len(manifest) != 1 || "docker.io/"+manifest[0].RepoTags[0] != images.AgentRef("", "v1.2.3") {
		t.Errorf("manifest: %+v, %v", manifest, err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		binary, err := buildBinary(t.Context(), images.AgentName, arch, "v1.2.3", os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		if len(binary) > 8<<20 {
			t.Errorf("the agent for %s has %d bytes, more than 8 MiB", arch, len(binary))
		}
		if !bytes.Contains(binary, []byte("v1.2.3")) {
			t.Errorf("the agent for %s does not know its version", arch)
		}
	}
}

func TestBinaryImage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary, out := filepath.Join(dir, "app"), filepath.Join(dir, "bin", "app.tar")
	if err := os.WriteFile(binary, []byte("a binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-binary", binary, "-ref", "example.com/app:1", "-arch", "amd64", "-env", "A=1", "-env", "B=two words", "-o", out}
	if err := run(t.Context(), args, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(out, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Architecture != "amd64" || cfg.Config.Entrypoint[0] != "/app" || len(cfg.Config.Env) != 2 || cfg.Config.Env[1] != "B=two words" {
		t.Errorf("config: %+v", cfg)
	}
	left, err := filepath.Glob(filepath.Join(dir, "bin", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"-o", "x", "more"}, {"-o", "x", "-binary", "none"}, {"-o", "x", "-binary", "none", "-ref", "x:1"}, {"-nonsense"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: want an error", args)
		}
	}
}
