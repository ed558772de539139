// Command build writes images of a static binary as archives for "docker load" and "ctr images import". Run in the
// repository:
//
//	go run ./images/build -o bin/telepresence-agent.tar
//	go run ./images/build -binary bin/app -ref example.com/app:1 -env GREETING=hello -o bin/app.tar
//
// Without -binary it builds the agent for each architecture, under the reference that the CLI of the same version
// uses by default. With -binary the image is of this file alone, for the architecture of its first -arch.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/telepresence/telepresence/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "images/build:", err)
		os.Exit(1)
	}
}

// list is a flag that may be given several times.
type list []string

// String returns the values as one.
func (l *list) String() string { return strings.Join(*l, ",") }

// Set adds a value.
func (l *list) Set(v string) error {
	*l = append(*l, v)
	return nil
}

// options are what the command line says.
type options struct {
	out, ref, binary, registry, version string
	cache                               bool
	arch, env                           list
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	fs := flag.NewFlagSet("images/build", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.out, "o", "", "archive to write")
	fs.StringVar(&o.ref, "ref", "", "reference of the image; default: the agent's")
	fs.StringVar(&o.binary, "binary", "", "static binary that is the image; default: the agent, built from source")
	fs.StringVar(&o.registry, "registry", os.Getenv("TELEPRESENCE_REGISTRY"), "registry of the agent's image")
	fs.StringVar(&o.version, "version", "dev", "version of the agent")
	fs.BoolVar(&o.cache, "imagecache", false, "make the image cache's image, not the agent's")
	fs.Var(&o.arch, "arch", "architecture, repeatable; default: amd64 and arm64")
	fs.Var(&o.env, "env", "K=V in the image's environment, repeatable")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.out == "" || fs.NArg() > 0 {
		return errors.New("usage: build -o FILE [-binary FILE -ref NAME:TAG] [-arch ARCH]… [-env K=V]…")
	}
	if len(o.arch) == 0 {
		o.arch = list{"amd64", "arm64"}
	}
	imgs, err := o.images(ctx, stderr)
	if err != nil {
		return err
	}
	if err := writeFile(o.out, o.ref, imgs); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: %s\n", o.out, o.ref)
	return err
}

// images makes the images, and completes o.ref.
func (o *options) images(ctx context.Context, stderr io.Writer) ([]v1.Image, error) {
	if o.binary != "" {
		if o.ref == "" {
			return nil, errors.New("-binary needs -ref")
		}
		content, err := os.ReadFile(o.binary)
		if err != nil {
			return nil, err
		}
		at := "/" + filepath.Base(o.binary)
		img, err := images.Build(images.Spec{
			Architecture: o.arch[0],
			Files:        []images.File{{Path: at, Mode: 0o755, Content: content}},
			Entrypoint:   []string{at},
			Env:          o.env,
		})
		return []v1.Image{img}, err
	}
	if o.ref == "" {
		o.ref = images.AgentRef(o.registry, o.version)
		if o.cache {
			o.ref = images.CacheRef(o.registry, o.version)
		}
	}
	var imgs []v1.Image
	for _, arch := range o.arch {
		img, err := o.image(ctx, arch, stderr)
		if err != nil {
			return nil, err
		}
		imgs = append(imgs, img)
	}
	return imgs, nil
}

// image makes the image for one architecture, of binaries that it builds.
func (o *options) image(ctx context.Context, arch string, stderr io.Writer) (v1.Image, error) {
	agent, err := buildBinary(ctx, images.AgentName, arch, o.version, stderr)
	if err != nil {
		return nil, err
	}
	if !o.cache {
		return images.Agent(arch, agent)
	}
	node, err := buildBinary(ctx, images.CacheName, arch, o.version, stderr)
	if err != nil {
		return nil, err
	}
	return images.Cache(arch, node, agent)
}

// buildBinary builds the binary of a command of ours, the same bytes from the same source wherever that lies.
func buildBinary(ctx context.Context, command, arch, version string, stderr io.Writer) ([]byte, error) {
	dir, err := os.MkdirTemp("", command+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, command)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -buildid= -X main.version="+version, "-o", out, "./cmd/"+command)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=")
	cmd.Stdout, cmd.Stderr = stderr, stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("building %s for %s: %w", command, arch, err)
	}
	return os.ReadFile(out)
}

// writeFile writes the archive, whole or not at all.
func writeFile(path, ref string, imgs []v1.Image) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".images-")
	if err != nil {
		return err
	}
	err = images.WriteArchive(f, ref, imgs...)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
