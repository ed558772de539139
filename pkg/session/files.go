package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/telepresence/telepresence/pkg/mount"
)

// podFiles is where the pod's files are on this machine.
type podFiles struct {
	root   string        // holds the pod's files under their paths
	made   bool          // root is the session's own, and goes with it
	files  io.Closer     // the mount, or the copies
	copies *mount.Copier // files, if it is that
}

// rootPattern are the names of the folders that sessions make for it.
const rootPattern = "telepresence-files-*"

// path is where a file of the pod's is here.
func (f *podFiles) path(inPod string) string { return filepath.Join(f.root, inPod) }

// SweepFiles takes away where the pod's files were on this machine in this user's
// sessions that were killed.
func SweepFiles() error {
	if err := mount.Sweep(filepath.Join(os.TempDir(), rootPattern)); err != nil {
		return fmt.Errorf("taking away the mounts of sessions that were killed: %w", err)
	}
	return nil
}

// mountFiles makes the pod's files appear on this machine: all of them by FUSE,
// or the volumes alone as copies, where there is none.
func (s *session) mountFiles(ctx context.Context) error {
	if s.o.Mount.Off && s.o.DockerMount == "" {
		return nil
	}
	f := &podFiles{root: s.o.Mount.Path}
	if f.root == "" {
		if err := SweepFiles(); err != nil {
			s.o.Log.Info(err.Error())
		}
		root, err := os.MkdirTemp("", rootPattern)
		if err != nil {
			return fmt.Errorf("making a folder for the pod's files: %w", err)
		}
		f.root, f.made = root, true
	} else if made, err := emptyFolder(f.root); err != nil {
		return err
	} else {
		f.made = made
	}
	s.files = f
	if why := s.whyCopies(); why != "" {
		s.ev.Warn(why + ": the pod's volumes are copied to where they can be seen, and kept as they are in the pod; what is written to the copies stays there")
	} else {
		mounted, err := mount.FUSE(ctx, mount.Config{
			SFTP: s.tunnel.SFTP, Mountpoint: f.root, UID: s.pod.UID, GID: s.pod.GID, Log: s.o.Log,
		})
		if err == nil {
			f.files = mounted
			return nil
		}
		if !errors.Is(err, mount.ErrNoFUSE) {
			return err
		}
		s.o.Log.Info("no FUSE", "err", err)
		s.ev.Warn("this machine has no FUSE: the pod's volumes are copied here, and kept as they are in the pod; what is written to the copies stays here (telepresence doctor tells how to have it)")
	}
	return s.copyVolumes(ctx, f)
}

// whyCopies is why the process can't see what this one has mounted; empty where
// it can.
func (s *session) whyCopies() string {
	if c, ok := s.place.(interface{ whyCopies() string }); ok {
		return c.whyCopies()
	}
	return ""
}

func (s *session) copyVolumes(ctx context.Context, f *podFiles) error {
	var volumes []string
	for _, m := range s.pod.Mounts {
		volumes = append(volumes, m.Path)
	}
	copies, err := mount.Copy(ctx, mount.CopyConfig{SFTP: s.tunnel.SFTP, Volumes: volumes, Target: f.root, Log: s.o.Log})
	if err != nil {
		return err
	}
	f.files, f.copies = copies, copies
	if skipped := copies.Skipped(); len(skipped) > 0 {
		s.ev.Warn("too large to be copied, and left out: " + strings.Join(skipped, ", "))
	}
	return nil
}

// emptyFolder makes a folder to mount on, unless it is there, and tells whether
// it did. One that holds something is refused: the mount would hide it.
func emptyFolder(path string) (made bool, err error) {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.Mkdir(path, 0o700); err != nil {
			return false, fmt.Errorf("making a folder for the pod's files: %w", err)
		}
		return true, nil
	case err != nil:
		return false, fmt.Errorf("mounting the pod's files: %w", err)
	case len(entries) > 0:
		return false, fmt.Errorf("mounting the pod's files: %s is not empty", path)
	}
	return false, nil
}

// unmountFiles takes away what mountFiles has made.
func (s *session) unmountFiles(context.Context) error {
	f := s.files
	if f == nil {
		return nil
	}
	var errs []error
	if f.files != nil {
		errs = append(errs, f.files.Close())
	}
	if f.made {
		// Only the folder: were the mount still there, the pod's files would go.
		if err := os.Remove(f.root); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing the folder of the pod's files: %w", err))
		}
	}
	return errors.Join(errs...)
}

// volumes are the pod's, as the process is to find them.
func (s *session) volumes() []volume {
	if s.files == nil {
		return nil
	}
	var list []volume
	for _, m := range s.pod.Mounts {
		list = append(list, volume{source: s.files.path(m.Path), target: m.Path, readOnly: m.ReadOnly})
	}
	return list
}
