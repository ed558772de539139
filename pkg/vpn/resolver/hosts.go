package resolver

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// hosts is a hosts file, by name and by address. Names are canonical: lower
// case, with a dot at the end.
type hosts struct {
	addrs map[string][]netip.Addr
	names map[netip.Addr]string // the first name of each
}

// parseHosts reads the text of a hosts file, and leaves out the lines it can't
// read.
func parseHosts(text string) hosts {
	h := hosts{addrs: make(map[string][]netip.Addr), names: make(map[netip.Addr]string)}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		addr = addr.Unmap().WithZone("")
		for _, name := range fields[1:] {
			if _, ok := dns.IsDomainName(name); !ok {
				continue
			}
			name = dns.CanonicalName(name)
			h.addrs[name] = append(h.addrs[name], addr)
			if _, named := h.names[addr]; !named {
				h.names[addr] = name
			}
		}
	}
	return h
}

// answer is the hosts file's answer, or nil where it has none: for names it
// doesn't have, and for other records than addresses, which are none of its
// business. A name with addresses of the other family only has none.
func (h hosts) answer(q *dns.Msg) *dns.Msg {
	question := q.Question[0]
	if question.Qclass != dns.ClassINET {
		return nil
	}
	a := reply(q)
	header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: hostsTTL}
	switch question.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		addrs, known := h.addrs[dns.CanonicalName(question.Name)]
		if !known {
			return nil
		}
		for _, addr := range addrs {
			if addr.Is4() && question.Qtype == dns.TypeA {
				a.Answer = append(a.Answer, &dns.A{Hdr: header, A: addr.AsSlice()})
			}
			if addr.Is6() && question.Qtype == dns.TypeAAAA {
				a.Answer = append(a.Answer, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
			}
		}
		return a
	case dns.TypePTR:
		addr, ok := reverse(question.Name)
		if !ok {
			return nil
		}
		name, known := h.names[addr]
		if !known {
			return nil
		}
		a.Answer = append(a.Answer, &dns.PTR{Hdr: header, Ptr: name})
		return a
	}
	return nil
}

// reverse is the address that a name of in-addr.arpa or ip6.arpa stands for
// (RFC 1035, section 3.5; RFC 3596, section 2.5), with or without its last dot.
func reverse(name string) (netip.Addr, bool) {
	name = dns.CanonicalName(name)
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(v4, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		addr, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return addr, err == nil
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa.")
	const nibbles = 32
	if !ok || len(v6) != 2*nibbles-1 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := range nibbles {
		if i > 0 && v6[2*i-1] != '.' {
			return netip.Addr{}, false
		}
		if i > 0 && i%4 == 0 {
			text.WriteByte(':')
		}
		text.WriteByte(v6[2*(nibbles-1-i)])
	}
	addr, err := netip.ParseAddr(text.String())
	return addr, err == nil
}
