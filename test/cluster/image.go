package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// imageName is the reference of one of the cluster's own images.
func imageName(program string) string { return "cluster.test/" + program + ":" + kubernetesVersion }

// writeImage writes an image that is one static program on nothing, as the
// archive that docker save writes.
func writeImage(path, reference, program string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	name := filepath.Base(program)
	var layer bytes.Buffer
	if err := writeTar(&layer, entry{name: name, mode: 0o755, text: binary}); err != nil {
		return err
	}
	digest := sha256.Sum256(layer.Bytes())
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/" + name}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(digest[:])}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": "config.json", "RepoTags": []string{reference}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	err = writeTar(f, entry{"config.json", 0o644, config}, entry{"layer.tar", 0o644, layer.Bytes()}, entry{"manifest.json", 0o644, manifest})
	if err != nil {
		return err
	}
	return f.Close()
}

// An entry is a file in an archive.
type entry struct {
	name string
	mode int64
	text []byte
}

func writeTar(w io.Writer, entries ...entry) error {
	archive := tar.NewWriter(w)
	for _, e := range entries {
		if err := archive.WriteHeader(&tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.text))}); err != nil {
			return err
		}
		if _, err := archive.Write(e.text); err != nil {
			return err
		}
	}
	return archive.Close()
}

// load gives images to all nodes that run, and keeps them for those to come.
func (c *cluster) load(ctx context.Context, tars []string) error {
	if _, err := c.network(); err != nil {
		return err
	}
	for _, tar := range tars {
		if err := c.keepImage(tar); err != nil {
			return err
		}
	}
	numbers, err := c.nodes()
	if err != nil {
		return err
	}
	for _, number := range numbers {
		name := fmt.Sprintf("node%d", number)
		if c.pid(name) == 0 {
			continue
		}
		for _, tar := range tars {
			if err := c.importImage(ctx, name, tar); err != nil {
				return err
			}
		}
		say("%s has %d image archive(s) more", name, len(tars))
	}
	return nil
}

// keepImage copies an archive to the folder of those that every node gets.
func (c *cluster) keepImage(tar string) error {
	source, err := os.Open(tar)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	if err := os.MkdirAll(c.path("images"), 0o755); err != nil {
		return err
	}
	kept, err := os.Create(c.path("images", filepath.Base(tar)))
	if err != nil {
		return err
	}
	defer func() { _ = kept.Close() }()
	if _, err := io.Copy(kept, source); err != nil {
		return fmt.Errorf("copying %s: %w", tar, err)
	}
	return kept.Close()
}

// importImage hands an archive to one node's containerd, which need not see
// the file: it is the command's input.
func (c *cluster) importImage(ctx context.Context, name, tar string) error {
	archive, err := os.Open(tar)
	if err != nil {
		return err
	}
	defer func() { _ = archive.Close() }()
	args := append(inside(c.pid(name)), "ctr", "--namespace", "k8s.io", "images", "import", "-")
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Stdin = archive
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("loading %s into %s: %w: %s", tar, name, err, bytes.TrimSpace(out))
	}
	return nil
}
