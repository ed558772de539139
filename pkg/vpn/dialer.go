package vpn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Dialer is the tunnel, as far as the engine needs it. It is called by many
// goroutines at once.
type Dialer interface {
	// DialContext connects from the pod to addr; network is "tcp" or "udp".
	// The error of the pod's own connect can be found in the error returned,
	// with errors.Is and the errno.
	//
	// A TCP connection has CloseWrite() error and, to break it off, Reset()
	// error or SetLinger(int) error; Read gives an error that is not io.EOF if
	// the pod's peer reset it. Each Read and Write of a UDP connection is one
	// datagram.
	DialContext(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	// Ping sends an ICMP echo request with that payload from the pod and
	// returns nil when the answer has come.
	Ping(ctx context.Context, addr netip.Addr, payload []byte) error
}

// verdict is how a network says no.
type verdict int

const (
	silence         verdict = iota // no answer at all
	refused                        // TCP reset, ICMP port unreachable
	hostUnreachable                // ICMP host unreachable
	netUnreachable                 // ICMP network unreachable
	prohibited                     // ICMP administratively prohibited
)

// verdictOf is what the client is to be told about err, so that its own system
// comes to the same errno as the pod's did.
func verdictOf(err error) verdict {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, context.Canceled):
		return refused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN),
		errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return netUnreachable
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return prohibited
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, context.DeadlineExceeded):
		// No packet says "timed out": the client's own patience must end.
		return silence
	default:
		return hostUnreachable
	}
}

// reset breaks a flow off, so that the pod's peer sees a reset if the tunnel
// can do that.
func reset(c net.Conn) {
	switch c := c.(type) {
	case interface{ Reset() error }:
		_ = c.Reset()
	case interface{ SetLinger(sec int) error }:
		_ = c.SetLinger(0)
	}
	_ = c.Close()
}

// closeWrite tells the pod's peer that nothing more will come. If that can't
// be told, the peer is gone, which reading from it shows.
func closeWrite(c net.Conn) {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
