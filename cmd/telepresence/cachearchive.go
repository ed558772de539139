package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/telepresence/telepresence/images"
)

// archiveSuffix tells an archive's name from an image's.
const archiveSuffix = ".tar"

// archive is the file of an image that is to leave this machine: a file, or, for
// the empty name, the one beside this program, or one that docker saves in folder.
func archive(ctx context.Context, name, beside, folder string) (file string, err error) {
	switch {
	case name == "":
		program, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("looking for %s.tar: %w", beside, err)
		}
		return filepath.Join(filepath.Dir(program), beside+archiveSuffix), nil
	case strings.HasSuffix(name, archiveSuffix):
		return name, nil
	}
	file = filepath.Join(folder, "image.tar")
	if out, err := exec.CommandContext(ctx, "docker", "save", "-o", file, name).CombinedOutput(); err != nil {
		return "", fmt.Errorf("taking image %s from docker: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return file, nil
}

// refOf is the reference that the image in an archive has.
func refOf(file string) (string, error) {
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
	if err != nil {
		return "", fmt.Errorf("reading image archive %s: %w", file, err)
	}
	if len(manifest) != 1 || len(manifest[0].RepoTags) == 0 {
		return "", fmt.Errorf("reading image archive %s: it does not hold one image with a name", file)
	}
	return manifest[0].RepoTags[0], nil
}

// indexOf is the image in an archive, for all architectures that it is there for:
// "make image" writes several, "docker save" one. Even one stands in an index: a
// node of another architecture then refuses it, and doesn't try to run it. The
// folder is for its parts.
func indexOf(file, folder string) (v1.ImageIndex, error) {
	parts := filepath.Join(folder, "parts")
	if err := unpack(file, parts); err != nil {
		return nil, fmt.Errorf("reading image archive %s: %w", file, err)
	}
	index, err := topIndex(parts)
	if err != nil || index != nil {
		return index, err
	}
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return nil, fmt.Errorf("reading image archive %s: %w", file, err)
	}
	return images.Index(img)
}

// topIndex is the one index of an OCI layout, or nil.
func topIndex(folder string) (v1.ImageIndex, error) {
	all, err := layout.ImageIndexFromPath(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	manifest, err := all.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || !manifest.Manifests[0].MediaType.IsIndex() {
		return nil, err
	}
	return all.ImageIndex(manifest.Manifests[0].Digest)
}

// unpack writes the regular files of a tar into a folder of their own.
func unpack(file, folder string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(folder) // whatever the names are
	if err != nil {
		return err
	}
	defer root.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(h.Name), 0o700); err != nil {
			return err
		}
		part, err := root.Create(h.Name)
		if err != nil {
			return err
		}
		_, err = io.Copy(part, tr)
		if err := errors.Join(err, part.Close()); err != nil {
			return err
		}
	}
}
