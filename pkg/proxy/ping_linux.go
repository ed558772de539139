package proxy

import (
	"bytes"
	"context"
	"errors"
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

// ping sends an echo request and waits for its reply, through an unprivileged ICMP socket: the kernel fills in
// identifier and checksum, and gives us the replies to our requests only.
func ping(ctx context.Context, addr netip.Addr, payload []byte) error {
	addr = addr.Unmap()
	family, proto, request, reply := unix.AF_INET, unix.IPPROTO_ICMP, byte(echoRequest4), byte(echoReply4)
	var to unix.Sockaddr
	if addr.Is6() {
		family, proto, request, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, echoRequest6, echoReply6
		to = &unix.SockaddrInet6{Addr: addr.As16()}
	} else {
		to = &unix.SockaddrInet4{Addr: addr.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return err
	}
	sock := os.NewFile(uintptr(fd), "ping")
	defer sock.Close()
	if err := unix.Connect(fd, to); err != nil { // so that ICMP errors come back as errnos
		return err
	}
	const sequence = 1
	msg := append([]byte{request, 0, 0, 0, 0, 0, 0, sequence}, payload...)
	if _, err := sock.Write(msg); err != nil {
		return err
	}
	return awaitReply(ctx, sock, reply, msg)
}

// awaitReply reads until the reply to msg has come.
func awaitReply(ctx context.Context, sock *os.File, reply byte, msg []byte) error {
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
		if n >= echoHeader && buf[0] == reply && buf[7] == msg[7] && bytes.Equal(buf[echoHeader:n], msg[echoHeader:]) {
			return nil
		}
	}
}
