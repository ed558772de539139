package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/telepresence/telepresence/images"
)

// pushed finds the image that push is to send: in a file, in docker, or, for
// the empty name, in the archive beside this program. done is called when the
// image has been sent.
func pushed(ctx context.Context, name string) (ref string, img v1.Image, done func(), err error) {
	done = func() {}
	if name == "" {
		program, err := os.Executable()
		if err != nil {
			return "", nil, done, fmt.Errorf("looking for %s.tar: %w", images.AgentName, err)
		}
		name = filepath.Join(filepath.Dir(program), images.AgentName+".tar")
	}
	if !strings.HasSuffix(name, ".tar") {
		folder, err := os.MkdirTemp("", "telepresence-push-*")
		if err != nil {
			return "", nil, done, fmt.Errorf("taking image %s from docker: %w", name, err)
		}
		done = func() { os.RemoveAll(folder) }
		file := filepath.Join(folder, "image.tar")
		if out, err := exec.CommandContext(ctx, "docker", "save", "-o", file, name).CombinedOutput(); err != nil {
			return "", nil, done, fmt.Errorf("taking image %s from docker: %w: %s", name, err, bytes.TrimSpace(out))
		}
		name = file
	}
	ref, img, err = fromArchive(name)
	return ref, img, done, err
}

// fromArchive reads an image, and the reference that it has, from what "docker
// save" or "make image" has written.
func fromArchive(file string) (ref string, img v1.Image, err error) {
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
	if err != nil {
		return "", nil, fmt.Errorf("reading image archive %s: %w", file, err)
	}
	if len(manifest) != 1 || len(manifest[0].RepoTags) == 0 {
		return "", nil, fmt.Errorf("reading image archive %s: it does not hold one image with a name", file)
	}
	img, err = tarball.ImageFromPath(file, nil)
	if err != nil {
		return "", nil, fmt.Errorf("reading image archive %s: %w", file, err)
	}
	return manifest[0].RepoTags[0], img, nil
}
