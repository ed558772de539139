package resolver

import (
	"context"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Exchange has a query answered: one message in, one out.
type Exchange = func(ctx context.Context, query []byte) ([]byte, error)

// Split has a query answered by inside where its name lies in one of the
// domains, or is the reverse name of an address in one of the ranges, and by
// outside otherwise. So what is asked outside never waits for what is inside.
func Split(domains []string, ranges []netip.Prefix, inside, outside Exchange) Exchange {
	return func(ctx context.Context, query []byte) ([]byte, error) {
		var m dns.Msg
		if m.Unpack(query) == nil && len(m.Question) == 1 && within(m.Question[0].Name, domains, ranges) {
			return inside(ctx, query)
		}
		return outside(ctx, query)
	}
}

// within tells whether a name is one of the domains', or an address's in the
// ranges.
func within(name string, domains []string, ranges []netip.Prefix) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, d := range domains {
		d = strings.ToLower(strings.TrimSuffix(d, "."))
		if name == d || strings.HasSuffix(name, "."+d) {
			return true
		}
	}
	addr, ok := reversed(name)
	if !ok {
		return false
	}
	for _, r := range ranges {
		if r.Contains(addr) {
			return true
		}
	}
	return false
}

// reversed is the address that a name of in-addr.arpa or ip6.arpa stands for
// (RFC 1035, section 3.5; RFC 3596, section 2.5).
func reversed(name string) (netip.Addr, bool) {
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		addr, err := netip.ParseAddr(strings.Join(backwards(v4), "."))
		return addr, err == nil && addr.Is4()
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa")
	digits := backwards(v6)
	if !ok || len(digits) != 32 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i, d := range digits {
		if i > 0 && i%4 == 0 {
			text.WriteByte(':')
		}
		text.WriteString(d)
	}
	addr, err := netip.ParseAddr(text.String())
	return addr, err == nil
}

func backwards(name string) []string {
	labels := strings.Split(name, ".")
	for i, j := 0, len(labels)-1; i < j; i, j = i+1, j-1 {
		labels[i], labels[j] = labels[j], labels[i]
	}
	return labels
}
