package dockerrun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// envDirPattern are the names of the folders with the environment of a session.
const envDirPattern = "telepresence-docker-*"

// An envDir is a folder that is locked while its session lives: the lock goes with
// the process, however that ends, and so tells sweepEnvDirs what is left over.
type envDir struct {
	path string
	lock *os.File
}

// makeEnvDir makes one in parent.
func makeEnvDir(parent string) (*envDir, error) {
	for {
		path, err := os.MkdirTemp(parent, envDirPattern)
		if err != nil {
			return nil, fmt.Errorf("making a folder for the environment: %w", err)
		}
		lock, err := lockDir(path, unix.LOCK_EX)
		if err == nil {
			// Another's sweep may have been faster: then the lock is on a folder that is gone.
			if _, err = os.Lstat(path); err == nil {
				return &envDir{path, lock}, nil
			}
			_ = lock.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("locking the folder for the environment: %w", err), os.RemoveAll(path))
		}
	}
}

// lockDir locks a folder until the file is closed.
func lockDir(path string, how int) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), how); err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return dir, nil
}

func (d *envDir) remove() error {
	err := os.RemoveAll(d.path)
	_ = d.lock.Close()
	return err
}

// sweepEnvDirs removes those in parent whose process was killed: they hold what
// the pod's environment has of secrets. Those of other users stay.
func sweepEnvDirs(parent string) error {
	dirs, err := filepath.Glob(filepath.Join(parent, envDirPattern))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range dirs {
		lock, err := lockDir(path, unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue // a session's that lives, or not ours
		}
		d := &envDir{path, lock}
		errs = append(errs, d.remove())
	}
	return errors.Join(errs...)
}
