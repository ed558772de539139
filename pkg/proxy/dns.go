package proxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Parts of a DNS message, RFC 1035, section 4.1.1.
const (
	dnsHeader    = 12
	dnsTruncated = 0x02 // in byte 2
	dnsRcode     = 0x0f // in byte 3
	dnsRefused   = 5
	dnsServfail  = 2
)

// Exchange sends a DNS query, as it is, to the pod's nameservers in their order, until one answers with something
// else than REFUSED or SERVFAIL, and returns the answer as it is. An answer truncated in UDP is asked for again in
// TCP. When no nameserver answers, that is an error.
func (c *Client) Exchange(ctx context.Context, query []byte) ([]byte, error) {
	answer, err := c.collect(ctx, channelDNS, query)
	if err == nil && len(answer) < dnsHeader {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("exchanging a DNS message in the pod: %w", err)
	}
	return answer, nil
}

// openDNS is the agent's end of Exchange.
func (s *session) openDNS(ctx context.Context, nc ssh.NewChannel) {
	answer, err := s.names.exchange(ctx, nc.ExtraData())
	if err != nil {
		refuse(nc, err)
		return
	}
	s.answer(nc, answer)
}

// nameservers asks the nameservers of a resolv.conf as its resolver would.
type nameservers struct {
	path string // of resolv.conf, read for each query: it may change
	port uint16 // 53, but in tests
}

// resolvConf is what counts of a resolv.conf, see resolv.conf(5).
type resolvConf struct {
	servers  []netip.Addr
	timeout  time.Duration
	attempts int
}

func parseResolvConf(text string) resolvConf {
	rc := resolvConf{timeout: 5 * time.Second, attempts: 2}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil && len(rc.servers) < 3 { // MAXNS
				rc.servers = append(rc.servers, a)
			}
		case "options":
			for _, o := range f[1:] {
				name, value, _ := strings.Cut(o, ":")
				n, err := strconv.Atoi(value)
				switch {
				case err != nil || n < 1:
				case name == "timeout":
					rc.timeout = time.Duration(min(n, 30)) * time.Second
				case name == "attempts":
					rc.attempts = min(n, 5)
				}
			}
		}
	}
	if len(rc.servers) == 0 {
		rc.servers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return rc
}

// exchange returns the first answer that is not REFUSED or SERVFAIL, or else the last of these.
func (n nameservers) exchange(ctx context.Context, query []byte) ([]byte, error) {
	if len(query) < dnsHeader {
		return nil, errors.New("DNS message without a header")
	}
	text, err := os.ReadFile(n.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	rc := parseResolvConf(string(text))
	var poor []byte
	var last error
	for range rc.attempts {
		for _, server := range rc.servers {
			answer, err := exchangeWith(ctx, netip.AddrPortFrom(server, n.port), query, rc.timeout)
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case err != nil:
				last = err
			case answer[3]&dnsRcode == dnsRefused || answer[3]&dnsRcode == dnsServfail:
				poor = answer
			default:
				return answer, nil
			}
		}
		if poor != nil {
			return poor, nil
		}
	}
	return nil, fmt.Errorf("no nameserver of the pod answers: %w", last)
}

// exchangeWith asks one nameserver, in UDP, and in TCP where the answer is too long for that.
func exchangeWith(ctx context.Context, server netip.AddrPort, query []byte, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := exchangeUDP(ctx, server, query)
	if err != nil || answer[2]&dnsTruncated == 0 {
		return answer, err
	}
	long, err := exchangeTCP(ctx, server, query)
	if err != nil {
		return answer, nil // better than nothing, and says that it is cut
	}
	return long, nil
}

// dialServer connects to a nameserver for as long as ctx has.
func dialServer(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	}
	return conn, err
}

func exchangeUDP(ctx context.Context, server netip.AddrPort, query []byte) ([]byte, error) {
	conn, err := dialServer(ctx, "udp", server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := datagramBuffers.Get().(*[]byte)
	defer datagramBuffers.Put(buf)
	for {
		n, err := conn.Read(*buf)
		if err != nil {
			return nil, err
		}
		if answers(query, (*buf)[:n]) {
			return append([]byte(nil), (*buf)[:n]...), nil
		}
	}
}

// exchangeTCP is RFC 1035, section 4.2.2.
func exchangeTCP(ctx context.Context, server netip.AddrPort, query []byte) ([]byte, error) {
	conn, err := dialServer(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	msg := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(query)), uint16(len(query)))
	if _, err := conn.Write(append(msg, query...)); err != nil {
		return nil, err
	}
	br := bufio.NewReader(conn)
	for {
		size, err := readLength(br)
		if err != nil {
			return nil, err
		}
		answer := make([]byte, size)
		if _, err := io.ReadFull(br, answer); err != nil {
			return nil, err
		}
		if answers(query, answer) {
			return answer, nil
		}
	}
}

// answers tells whether msg can be the answer to query: a response of the same ID.
func answers(query, msg []byte) bool {
	return len(msg) >= dnsHeader && msg[0] == query[0] && msg[1] == query[1] && msg[2]&0x80 != 0
}
