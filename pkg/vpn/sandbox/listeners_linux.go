package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// listener is a TCP listener of a network namespace.
type listener struct {
	addr netip.AddrPort
	both bool // an IPv6 one that takes IPv4 too
}

// reaches is the address at which localhost reaches the listener with IPv4 or
// IPv6, if it does.
func (l listener) reaches(v6 bool) (netip.AddrPort, bool) {
	a := l.addr.Addr()
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if v6 {
		local = netip.IPv6Loopback()
	}
	if a.Is6() != v6 && (!l.both || !a.IsUnspecified()) {
		return netip.AddrPort{}, false
	}
	if a.IsUnspecified() || a == local {
		return netip.AddrPortFrom(local, l.addr.Port()), true
	}
	return netip.AddrPort{}, false
}

// Sizes and numbers of linux/inet_diag.h and linux/sock_diag.h.
const (
	diagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	diagRequest  = 56 // struct inet_diag_req_v2
	diagMessage  = 72 // struct inet_diag_msg
	diagV6Only   = 11 // INET_DIAG_SKV6ONLY
	tcpListen    = 10 // TCP_LISTEN
)

// diagSocket is a socket that can be asked for the listeners of the network
// namespace in which it is made.
func diagSocket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, &Error{Op: "asking for listeners", Err: err}
	}
	return os.NewFile(uintptr(fd), "sock_diag"), nil
}

// diag asks for listeners. It may be used by several goroutines at once.
type diag struct {
	mu   sync.Mutex // one question at a time
	file *os.File
	seq  uint32
}

// listeners are all TCP listeners of the namespace.
func (d *diag) listeners() ([]listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []listener
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		some, err := d.dumpLocked(family)
		if err != nil {
			return nil, fmt.Errorf("asking for listeners: %w", err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func (d *diag) dumpLocked(family uint8) ([]listener, error) {
	d.seq++
	q := make([]byte, unix.SizeofNlMsghdr+diagRequest)
	binary.NativeEndian.PutUint32(q, uint32(len(q))) //nolint:gosec // 72
	binary.NativeEndian.PutUint16(q[4:], diagByFamily)
	binary.NativeEndian.PutUint16(q[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(q[8:], d.seq)
	body := q[unix.SizeofNlMsghdr:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[4:], 1<<tcpListen)
	if err := d.file.SetDeadline(time.Now().Add(callPatience)); err != nil {
		return nil, err
	}
	if _, err := d.file.Write(q); err != nil {
		return nil, err
	}
	var all []listener
	for buf := make([]byte, 64<<10); ; {
		n, err := d.file.Read(buf)
		if err != nil {
			return nil, err
		}
		some, done, err := parseDump(buf[:n], d.seq)
		all = append(all, some...)
		if done || err != nil {
			return all, err
		}
	}
}

// errShort is a message of the kernel that ends too early.
var errShort = errors.New("a message is cut short")

// parseDump reads one datagram of the answer to a question, and says whether it
// was the last. Messages with another sequence number are skipped.
func parseDump(b []byte, seq uint32) (found []listener, done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return found, true, errShort
		}
		body := b[unix.SizeofNlMsghdr:size]
		if binary.NativeEndian.Uint32(b[8:]) == seq {
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return found, true, nil
			case unix.NLMSG_ERROR:
				if len(body) < 4 {
					return found, true, errShort
				}
				code := -int32(binary.NativeEndian.Uint32(body)) //nolint:gosec // a negative errno
				return found, true, unix.Errno(code)             //nolint:gosec // as above
			case diagByFamily:
				if l, ok := parseListener(body); ok {
					found = append(found, l)
				}
			}
		}
		b = b[min(align4(size), len(b)):]
	}
	return found, false, nil
}

// parseListener reads a struct inet_diag_msg and the attributes after it.
func parseListener(b []byte) (listener, bool) {
	if len(b) < diagMessage || b[1] != tcpListen {
		return listener{}, false
	}
	port := binary.BigEndian.Uint16(b[4:])
	switch b[0] {
	case unix.AF_INET:
		return listener{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[8:12])), port)}, true
	case unix.AF_INET6:
		l := listener{addr: netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port), both: true}
		for b = b[diagMessage:]; len(b) >= unix.SizeofRtAttr; {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				break
			}
			if binary.NativeEndian.Uint16(b[2:]) == diagV6Only && size > unix.SizeofRtAttr {
				l.both = b[unix.SizeofRtAttr] == 0
			}
			b = b[min(align4(size), len(b)):]
		}
		return l, true
	}
	return listener{}, false
}

func align4(n int) int { return (n + 3) &^ 3 }
