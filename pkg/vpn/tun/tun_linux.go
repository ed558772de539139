package tun

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const clonePath = "/dev/net/tun"

// device is a descriptor of /dev/net/tun with an interface attached.
type device struct {
	*os.File
	mtu int
}

// MTU implements Device.
func (d *device) MTU() int { return d.mtu }

// Open makes a TUN device in the network namespace of the calling thread,
// with packets of up to mtu bytes, and leaves it down and without addresses.
// The kernel replaces a %d in name by a number; Name tells the result. Open
// fails with os.ErrNotExist or os.ErrPermission when /dev/net/tun is not to be
// had, and with EBUSY when the name is taken.
func Open(name string, mtu int) (Device, error) {
	f, err := OpenFile(name, mtu)
	if err != nil {
		return nil, err
	}
	return &device{File: f, mtu: mtu}, nil
}

// OpenFile is Open for who hands the descriptor to another process, which
// makes a Device of it with FromFile.
func OpenFile(name string, mtu int) (*os.File, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: clonePath, Err: err}
	}
	if err := attach(fd, name, mtu); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	// Only now: a descriptor without an interface can't be polled.
	return os.NewFile(uintptr(fd), clonePath), nil
}

// attach makes the interface and sets its MTU.
func attach(fd int, name string, mtu int) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface name %q: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("making TUN device %q: %w", name, err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket to set the MTU of %q: %w", ifr.Name(), err)
	}
	defer func() { _ = unix.Close(s) }()
	ifr.SetUint32(uint32(mtu)) //nolint:gosec // the kernel refuses what does not fit
	if err := unix.IoctlIfreq(s, unix.SIOCSIFMTU, ifr); err != nil {
		return fmt.Errorf("setting the MTU of %q to %d: %w", ifr.Name(), mtu, err)
	}
	return nil
}

// FromFile makes a Device of a TUN descriptor that was opened elsewhere, with
// packets of up to mtu bytes. It takes f over and closes it.
func FromFile(f *os.File, mtu int) (Device, error) {
	defer func() { _ = f.Close() }()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("using descriptor of %s: %w", f.Name(), err)
	}
	// A copy, since f may be a blocking file to the runtime, and Close could
	// then not end a Read.
	fd := -1
	var dupErr error
	err = raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = dupErr
	}
	if err != nil {
		return nil, fmt.Errorf("duplicating descriptor of %s: %w", f.Name(), err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("setting descriptor of %s non-blocking: %w", f.Name(), err)
	}
	return &device{File: os.NewFile(uintptr(fd), f.Name()), mtu: mtu}, nil
}

// Name is the name of the interface behind f, as its network namespace has it.
func Name(f *os.File) (string, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return "", fmt.Errorf("using descriptor of %s: %w", f.Name(), err)
	}
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", fmt.Errorf("making an interface request: %w", err)
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr)
	})
	if err == nil {
		err = ioctlErr
	}
	if err != nil {
		return "", fmt.Errorf("asking for the name of a TUN device: %w", err)
	}
	return ifr.Name(), nil
}
