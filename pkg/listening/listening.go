// Package listening tells on which TCP ports of this machine, or of the network
// namespace in which the program runs, somebody listens.
//
// It reads the kernel's own tables
// (https://docs.kernel.org/networking/proc_net_tcp.html), so that nobody is
// disturbed: a connection that is only a question would be accepted, and logged,
// by whoever listens.
package listening

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
)

// The kernel's tables of TCP sockets, by family. A kernel without IPv6 lacks
// the second.
var tables = []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"}

// stateListen is TCP_LISTEN of the kernel's include/net/tcp_states.h.
const stateListen = "0A"

// Addresses returns where somebody listens, in no order. An unspecified address
// means all of the namespace's own.
func Addresses() ([]netip.AddrPort, error) {
	var list []netip.AddrPort
	for _, table := range tables {
		text, err := os.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, parse(text)...)
	}
	return list, nil
}

// OnLocalhost tells whether somebody who connects to port on localhost is
// answered.
func OnLocalhost(port uint16) bool {
	list, err := Addresses()
	return err == nil && slices.ContainsFunc(list, func(at netip.AddrPort) bool {
		return at.Port() == port && Local(at.Addr())
	})
}

// Local tells whether localhost is one of the addresses that listening on an
// address means.
func Local(at netip.Addr) bool { return at.IsUnspecified() || at.IsLoopback() }

// parse reads a table of the kernel's: a head line, then a socket a line. Lines
// that it doesn't understand are passed over.
func parse(table []byte) []netip.AddrPort {
	var list []netip.AddrPort
	for line := range bytes.Lines(table) {
		fields := bytes.Fields(line)
		if len(fields) < 4 || string(fields[3]) != stateListen {
			continue
		}
		if at, ok := parseAddress(fields[1]); ok {
			list = append(list, at)
		}
	}
	return list
}

// parseAddress reads ADDRESS:PORT in hexadecimal digits. The address is made of
// words of 32 bits in the machine's order, which is the little-endian one on all
// that we build for.
func parseAddress(text []byte) (netip.AddrPort, bool) {
	address, portText, ok := bytes.Cut(text, []byte(":"))
	if !ok {
		return netip.AddrPort{}, false
	}
	port, err := strconv.ParseUint(string(portText), 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(string(address))
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}
