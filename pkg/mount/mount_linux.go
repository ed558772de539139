package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/doctor"
)

const fuseDevice = "/dev/fuse"

// available tells whether this user can mount FUSE file systems.
func available() error {
	if os.Geteuid() == 0 {
		return openDevice()
	}
	if _, err := os.Stat(fuseDevice); err != nil {
		return noFUSE(err, "load the kernel module: sudo modprobe fuse")
	}
	if _, err := fusermount(); err != nil {
		return noFUSE(err, "install fuse3: sudo apt-get install fuse3")
	}
	return nil
}

// openDevice tells whether the FUSE device can be opened, as root mounts
// without fusermount.
func openDevice() error {
	f, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return noFUSE(err, "load the kernel module (modprobe fuse), or start this container with --device /dev/fuse --cap-add SYS_ADMIN")
	case err != nil:
		return noFUSE(err, "start this container with --device /dev/fuse --cap-add SYS_ADMIN")
	}
	return f.Close()
}

// mountNow mounts. The descriptor of a direct mount must not be inherited, and
// go-fuse leaves it so that it is: a child that holds it keeps the mount from
// failing when this process is killed, and whoever waits for an answer then,
// the child itself included, would wait for ever. No child is started until
// that is mended.
func mountNow(rawFS fuse.RawFileSystem, mountpoint string, opts *fuse.MountOptions) (*fuse.Server, error) {
	if !opts.DirectMountStrict {
		return fuse.NewServer(rawFS, mountpoint, opts) // by fusermount, a child
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	server, err := fuse.NewServer(rawFS, mountpoint, opts)
	if errors.Is(err, os.ErrPermission) {
		return nil, noFUSE(err, "start this container with --device /dev/fuse --cap-add SYS_ADMIN")
	}
	if err != nil {
		return nil, err
	}
	const open = "/proc/self/fd"
	entries, err := os.ReadDir(open)
	for _, e := range entries {
		fd, notNumber := strconv.Atoi(e.Name())
		if target, _ := os.Readlink(filepath.Join(open, e.Name())); target == fuseDevice && notNumber == nil {
			syscall.CloseOnExec(fd)
		}
	}
	if err != nil {
		return nil, errors.Join(err, detach(mountpoint))
	}
	return server, nil
}

// fusermount finds the set-uid program that mounts for ordinary users.
func fusermount() (string, error) {
	path, err := exec.LookPath("fusermount3")
	if err != nil {
		path, err = exec.LookPath("fusermount")
	}
	return path, err
}

// detach takes the mount out of the file system although it is in use.
func detach(mountpoint string) error {
	err := unix.Unmount(mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) { // EINVAL: no longer mounted
		return nil
	}
	program, lookErr := fusermount()
	if lookErr != nil {
		return err
	}
	if out, err := exec.Command(program, "-u", "-z", mountpoint).CombinedOutput(); err != nil {
		return fmt.Errorf("%s -u -z: %w: %s", filepath.Base(program), err, out)
	}
	return nil
}

// minorOf is the minor device number under which the kernel lists a mount's
// connection.
func minorOf(mountpoint string) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(mountpoint, &st); err != nil {
		return 0, err
	}
	return unix.Minor(st.Dev), nil
}

// abort makes the kernel fail whatever still waits for the mount, where the
// control file system is there to ask it.
func abort(minor uint32) {
	if minor == 0 {
		return
	}
	path := filepath.Join("/sys/fs/fuse/connections", strconv.FormatUint(uint64(minor), 10), "abort")
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("1")
		_ = f.Close()
	}
}

// Checks are what `doctor` asks about mounting the pod's files.
func Checks() []doctor.Check {
	return []doctor.Check{{
		Name: "FUSE",
		Run: func(context.Context) (string, error) {
			if err := available(); err != nil {
				return "", fmt.Errorf("%w; the pod's volumes are copied instead", err)
			}
			if os.Geteuid() == 0 {
				return fuseDevice, nil
			}
			return fusermount()
		},
		Fix: "sudo modprobe fuse && sudo apt-get install fuse3",
	}}
}
