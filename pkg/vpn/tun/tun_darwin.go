package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Untested: nobody ran this on a Mac yet. It is compiled with everything else.

const (
	utunControl     = "com.apple.net.utun_control"
	utunOptIfname   = 2 // UTUN_OPT_IFNAME of net/if_utun.h
	sysprotoControl = 2 // SYSPROTO_CONTROL of sys/sys_domain.h
	familyBytes     = 4 // the address family before each packet
)

// device is the socket of a utun interface.
type device struct {
	file *os.File
	mtu  int
	bufs sync.Pool // of *[]byte, a packet with its address family
}

// Open makes a utun device with packets of up to mtu bytes. The system
// chooses the name, which Name tells; the name given is ignored.
func Open(_ string, mtu int) (Device, error) {
	f, err := OpenFile("", mtu)
	if err != nil {
		return nil, err
	}
	return newDevice(f, mtu), nil
}

// OpenFile is Open for who hands the descriptor to another process, which
// makes a Device of it with FromFile.
func OpenFile(_ string, mtu int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_SYSTEM, unix.SOCK_DGRAM, sysprotoControl)
	if err != nil {
		return nil, fmt.Errorf("opening a system socket: %w", err)
	}
	unix.CloseOnExec(fd)
	if err := attach(fd, mtu); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "utun"), nil
}

// attach makes the interface and sets its MTU.
func attach(fd, mtu int) error {
	info := &unix.CtlInfo{}
	copy(info.Name[:], utunControl)
	if err := unix.IoctlCtlInfo(fd, info); err != nil {
		return fmt.Errorf("finding %s: %w", utunControl, err)
	}
	if err := unix.Connect(fd, &unix.SockaddrCtl{ID: info.Id}); err != nil {
		return fmt.Errorf("making a utun device: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("setting utun non-blocking: %w", err)
	}
	name, err := unix.GetsockoptString(fd, sysprotoControl, utunOptIfname)
	if err != nil {
		return fmt.Errorf("asking for the name of a utun device: %w", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("opening a socket to set the MTU of %s: %w", name, err)
	}
	defer func() { _ = unix.Close(s) }()
	ifr := unix.IfreqMTU{MTU: int32(mtu)} //nolint:gosec // the kernel refuses what does not fit
	copy(ifr.Name[:], name)
	if err := unix.IoctlSetIfreqMTU(s, &ifr); err != nil {
		return fmt.Errorf("setting the MTU of %s to %d: %w", name, mtu, err)
	}
	return nil
}

// FromFile makes a Device of a utun descriptor that was opened elsewhere, with
// packets of up to mtu bytes. It takes f over.
func FromFile(f *os.File, mtu int) (Device, error) {
	return newDevice(f, mtu), nil
}

func newDevice(f *os.File, mtu int) *device {
	d := &device{file: f, mtu: mtu}
	d.bufs.New = func() any {
		b := make([]byte, familyBytes+mtu)
		return &b
	}
	return d
}

// Name is the name of the interface behind f.
func Name(f *os.File) (string, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return "", fmt.Errorf("using descriptor of %s: %w", f.Name(), err)
	}
	var name string
	var optErr error
	err = raw.Control(func(fd uintptr) {
		name, optErr = unix.GetsockoptString(int(fd), sysprotoControl, utunOptIfname)
	})
	if err == nil {
		err = optErr
	}
	if err != nil {
		return "", fmt.Errorf("asking for the name of a utun device: %w", err)
	}
	return name, nil
}

// Read implements Device.
func (d *device) Read(p []byte) (int, error) {
	buf := d.bufs.Get().(*[]byte)
	defer d.bufs.Put(buf)
	n, err := d.file.Read(*buf)
	if err != nil {
		return 0, err
	}
	if n < familyBytes {
		return 0, nil
	}
	return copy(p, (*buf)[familyBytes:n]), nil
}

// Write implements Device.
func (d *device) Write(p []byte) (int, error) {
	if len(p) == 0 || len(p) > d.mtu {
		return 0, errors.New("writing to utun: a packet must have between 1 byte and the MTU")
	}
	buf := d.bufs.Get().(*[]byte)
	defer d.bufs.Put(buf)
	family := uint32(unix.AF_INET)
	if p[0]>>4 == 6 {
		family = unix.AF_INET6
	}
	binary.BigEndian.PutUint32(*buf, family)
	n := copy((*buf)[familyBytes:], p)
	if _, err := d.file.Write((*buf)[:familyBytes+n]); err != nil {
		return 0, err
	}
	return n, nil
}

// MTU implements Device.
func (d *device) MTU() int { return d.mtu }

// Close implements Device.
func (d *device) Close() error { return d.file.Close() }
