package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Message types of RFC 792 and RFC 4443.
const (
	echoRequest4 = 8
	echoReply4   = 0
	echoRequest6 = 128
	echoReply6   = 129
	echoHeader   = 8
)

// icmpKind is what the two versions of the protocol differ in.
type icmpKind struct {
	family, proto  int
	request, reply byte
}

var (
	icmp4 = icmpKind{unix.AF_INET, unix.IPPROTO_ICMP, echoRequest4, echoReply4}
	icmp6 = icmpKind{unix.AF_INET6, unix.IPPROTO_ICMPV6, echoRequest6, echoReply6}
)

// ping sends an echo request and waits for its reply, through an unprivileged ICMP socket: the kernel fills in
// identifier and checksum, and gives us the replies to our requests only. Where net.ipv4.ping_group_range allows none,
// as in most pods, it is a raw socket, if the container has the capability.
func ping(ctx context.Context, addr netip.Addr, payload []byte) error {
	err := pingBy(ctx, unix.SOCK_DGRAM, addr, payload)
	if errors.Is(err, unix.EACCES) {
		if raw := pingBy(ctx, unix.SOCK_RAW, addr, payload); !errors.Is(raw, unix.EPERM) {
			return raw
		}
	}
	return err
}

func pingBy(ctx context.Context, kind int, addr netip.Addr, payload []byte) error {
	addr = addr.Unmap()
	icmp := icmp4
	var to unix.Sockaddr
	if addr.Is6() {
		icmp, to = icmp6, &unix.SockaddrInet6{Addr: addr.As16()}
	} else {
		to = &unix.SockaddrInet4{Addr: addr.As4()}
	}
	fd, err := unix.Socket(icmp.family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, icmp.proto)
	if err != nil {
		return err
	}
	sock := os.NewFile(uintptr(fd), "ping")
	defer sock.Close()
	if err := unix.Connect(fd, to); err != nil { // so that ICMP errors come back as errnos
		return err
	}
	const sequence = 1
	msg := append([]byte{icmp.request, 0, 0, 0, 0, 0, 0, sequence}, payload...)
	raw := kind == unix.SOCK_RAW
	if raw {
		binary.BigEndian.PutUint16(msg[4:], uint16(rand.Uint32())) //nolint:gosec // only to tell pings apart
		if icmp == icmp4 {                                         // the kernel fills in that of the other
			binary.BigEndian.PutUint16(msg[2:], checksum(msg))
		}
	}
	if _, err := sock.Write(msg); err != nil {
		return err
	}
	return awaitReply(ctx, sock, func(got []byte) bool {
		if raw && icmp == icmp4 && len(got) > 0 { // an IP header comes first
			got = got[min(len(got), int(got[0]&0xf)*4):]
		}
		return len(got) >= echoHeader && got[0] == icmp.reply && (!raw || bytes.Equal(got[4:6], msg[4:6])) &&
			got[7] == msg[7] && bytes.Equal(got[echoHeader:], msg[echoHeader:])
	})
}

// checksum is that of RFC 1071.
func checksum(msg []byte) uint16 {
	var sum uint32
	for i, b := range msg {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// awaitReply reads until the reply has come.
func awaitReply(ctx context.Context, sock *os.File, isReply func([]byte) bool) error {
	buf := make([]byte, maxDatagram)
	for {
		// In short turns, for ctx may end before its deadline.
		turn := time.Now().Add(250 * time.Millisecond)
		if deadline, ok := ctx.Deadline(); ok && deadline.Before(turn) {
			turn = deadline
		}
		if err := sock.SetReadDeadline(turn); err != nil {
			return err
		}
		n, err := sock.Read(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		if isReply(buf[:n]) {
			return nil
		}
	}
}
