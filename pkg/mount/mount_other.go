//go:build !linux

package mount

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/telepresence/telepresence/pkg/doctor"
)

// available says that only Linux has the FUSE this package was made for; the
// caller copies instead.
func available() error { return noFUSE(errors.ErrUnsupported, "") }

// mountNow is never reached where nothing can be mounted.
func mountNow(fuse.RawFileSystem, string, *fuse.MountOptions) (*fuse.Server, error) {
	return nil, noFUSE(errors.ErrUnsupported, "")
}

// detach is never reached where nothing can be mounted.
func detach(string) error { return errors.ErrUnsupported }

// minorOf is never reached where nothing can be mounted.
func minorOf(string) (uint32, error) { return 0, nil }

// abort is never reached where nothing can be mounted.
func abort(uint32) {}

// Checks are what `doctor` asks about mounting the pod's files: nothing here,
// as they are always copied.
func Checks() []doctor.Check { return nil }
