package resolver

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Exchange has a query answered: one message in, one out.
type Exchange = func(ctx context.Context, query []byte) ([]byte, error)

// shortWithin is how long a name that may be the cluster's waits for the
// cluster: where the tunnel stalls, the machine's own name of that form is
// still found at once.
const shortWithin = 300 * time.Millisecond

// Inside is what is the cluster's.
type Inside struct {
	Domains []string
	Foreign []string               // more such domains, whose names the cluster has from elsewhere
	Ranges  []netip.Prefix         // of its addresses, for reverse names
	Search  []string               // of the pod's search list, what lies in the domains
	Knows   func(name string) bool // whether the pod's hosts file has a name; may be nil
	Answer  Exchange
	Again   Exchange // who is asked what the cluster sends back here; nil: outside
	Returns bool     // the cluster is known to resolve through this machine
}

// Split has a query answered inside where its name lies in one of the domains,
// is the reverse name of an address in one of the ranges, or is in the pod's
// hosts file, and by outside otherwise. So what is asked outside never waits for
// what is inside, but for names that a pod would complete: those are asked inside
// for a moment, and outside only where they aren't the cluster's.
func Split(in Inside, outside Exchange) Exchange {
	elsewhere := &comingBack{inside: in.Answer, outside: outside, patience: shortWithin, underWay: map[string]*asked{}}
	if in.Again != nil {
		elsewhere.outside = in.Again
	}
	if in.Returns {
		elsewhere.patience = 0
	}
	return func(ctx context.Context, query []byte) ([]byte, error) {
		var m dns.Msg
		if m.Unpack(query) != nil || len(m.Question) != 1 {
			return outside(ctx, query)
		}
		name := m.Question[0].Name
		if within(name, in.Domains, nil) || in.Knows != nil && in.Knows(name) {
			return in.Answer(ctx, query)
		}
		if within(name, in.Foreign, in.Ranges) {
			return elsewhere.exchange(ctx, query)
		}
		if whole, ok := in.complete(name); ok {
			ctx, cancel := context.WithTimeout(ctx, shortWithin)
			answer := in.as(ctx, &m, whole)
			cancel()
			if answer != nil {
				return answer, nil
			}
		}
		return outside(ctx, query)
	}
}

// complete is the whole name of web.shop, where shop is the pod's namespace, and
// of web.shop.svc: what the pod's search list makes of them. Other last labels may
// be namespaces too, but they may as well be the world's domains, whose names
// must not be kept waiting.
func (in Inside) complete(name string) (string, bool) {
	labels := strings.Split(strings.ToLower(strings.TrimSuffix(name, ".")), ".")
	if len(labels) < 2 {
		return "", false
	}
	last := labels[len(labels)-1]
	for _, zone := range in.Domains {
		zone = strings.TrimSuffix(zone, ".")
		switch {
		case !slices.Contains(in.Search, "svc."+zone):
		case last == "svc":
			return strings.Join(labels, ".") + "." + zone + ".", true
		case slices.Contains(in.Search, last+".svc."+zone):
			return strings.Join(labels, ".") + ".svc." + zone + ".", true
		}
	}
	return "", false
}

// as is the cluster's answer for the whole name, as one to the query; nil where
// the cluster has no such name or says nothing.
func (in Inside) as(ctx context.Context, query *dns.Msg, whole string) []byte {
	ask, asked := query.Copy(), query.Question[0].Name
	ask.Question[0].Name = whole
	packed, err := ask.Pack()
	if err != nil {
		return nil
	}
	answer, err := in.Answer(ctx, packed)
	var a dns.Msg
	if err != nil || a.Unpack(answer) != nil || a.Rcode != dns.RcodeSuccess || len(a.Question) != 1 {
		return nil
	}
	a.Question[0].Name = asked
	for _, record := range a.Answer {
		if h := record.Header(); strings.EqualFold(h.Name, whole) {
			h.Name = asked
		}
	}
	if answer, err = a.Pack(); err != nil {
		return nil
	}
	return answer
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
	addr, ok := reverse(name)
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
