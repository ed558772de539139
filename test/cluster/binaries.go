package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// kubernetesVersion is go.mod's; without it in the binary the components
// refuse each other.
const kubernetesVersion = "v1.34.4"

// components are the names under which the kube program is called.
var components = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"}

// binaries is the folder of the built components. Its name is made from what
// they are built of, so that a change of version builds anew and a fresh clone
// finds what another has built.
func (c *cluster) binaries() (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "kube/main.go", "coredns/main.go", "pause/main.go"} {
		text, err := os.ReadFile(filepath.Join(c.source, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
	}
	return filepath.Join(c.cache, hex.EncodeToString(sum.Sum(nil))[:16]), nil
}

// build builds the components that are not in the cache.
func (c *cluster) build(ctx context.Context) error {
	dir, err := c.binaries()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(c.cache, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(c.cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return nil // another has built them meanwhile
	}
	unfinished := dir + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	if err := c.buildInto(ctx, unfinished); err != nil {
		return err
	}
	return os.Rename(unfinished, dir)
}

func (c *cluster) buildInto(ctx context.Context, dir string) error {
	const version = "-X k8s.io/component-base/version."
	minor := strings.Split(kubernetesVersion, ".")[1]
	say("building Kubernetes %s (some minutes the first time)", kubernetesVersion)
	if err := c.goBuild(ctx, dir, "kube", version+"gitVersion="+kubernetesVersion, version+"gitMajor=1", version+"gitMinor="+minor); err != nil {
		return err
	}
	for _, name := range components {
		if err := os.Symlink("kube", filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	say("building CoreDNS")
	for _, name := range []string{"coredns", "pause"} {
		if err := c.goBuild(ctx, dir, name); err != nil {
			return err
		}
		if err := writeImage(filepath.Join(dir, name+".tar"), imageName(name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// goBuild builds one of this module's programs, static and without symbols.
func (c *cluster) goBuild(ctx context.Context, dir, name string, ldflags ...string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(dir, name),
		"-ldflags", strings.Join(append([]string{"-s -w"}, ldflags...), " "), "./"+name)
	cmd.Dir = c.source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s: %w", name, err)
	}
	return nil
}
