package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// perServer is how long one nameserver is waited for before the next is asked.
const perServer = 3 * time.Second

// Nameservers returns a function that has the first of these servers answer
// that does: the next is asked when one can't be reached, says nothing for
// three seconds, or refuses or fails. An answer cut for UDP is asked for again
// by TCP.
func Nameservers(servers []netip.AddrPort) func(ctx context.Context, query []byte) ([]byte, error) {
	return func(ctx context.Context, query []byte) ([]byte, error) {
		if len(servers) == 0 {
			return nil, errors.New("there is no nameserver to ask")
		}
		var errs []error
		var last []byte
		for _, server := range servers {
			answer, err := ask(ctx, server, query)
			if err != nil {
				errs = append(errs, fmt.Errorf("asking nameserver %s: %w", server, err))
				continue
			}
			last = answer
			switch rcode(answer) {
			case dns.RcodeServerFailure, dns.RcodeNotImplemented, dns.RcodeRefused:
				continue
			}
			return answer, nil
		}
		if last != nil {
			return last, nil
		}
		return nil, errors.Join(errs...)
	}
}

func rcode(answer []byte) int { return int(answer[3] & 0xf) }

// ask asks one server by UDP, and by TCP if the answer was cut.
func ask(ctx context.Context, server netip.AddrPort, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, perServer)
	defer cancel()
	answer, err := exchange(ctx, "udp", server, query)
	const truncated = 0x2 // in the header's third byte
	if err == nil && answer[2]&truncated != 0 {
		if whole, err := exchange(ctx, "tcp", server, query); err == nil {
			return whole, nil
		}
	}
	return answer, err
}

// exchange sends the query and returns the first message with its ID that has
// a whole header.
func exchange(ctx context.Context, network string, server netip.AddrPort, query []byte) ([]byte, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	// The context ends no later than its deadline, and a cancelled one only
	// lets this exchange end unheard.
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	message := query
	if network == "tcp" {
		if len(query) > dns.MaxMsgSize {
			return nil, fmt.Errorf("a query of %d bytes is too long", len(query))
		}
		message = binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(query)), uint16(len(query))) //nolint:gosec // checked above
		message = append(message, query...)
	}
	if _, err := c.Write(message); err != nil {
		return nil, err
	}
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, err := readMessage(c, network, buf)
		if err != nil {
			return nil, err
		}
		if n >= 12 && n <= len(buf) && buf[0] == query[0] && buf[1] == query[1] {
			return append([]byte(nil), buf[:n]...), nil
		}
	}
}

func readMessage(c net.Conn, network string, buf []byte) (int, error) {
	if network != "tcp" {
		return c.Read(buf)
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return 0, err
	}
	return io.ReadFull(c, buf[:binary.BigEndian.Uint16(length[:])])
}
