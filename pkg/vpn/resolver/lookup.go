package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// errNoSuchName is what there is to say of a name without addresses.
var errNoSuchName = errors.New("no such name")

// Lookup is the addresses that a name has in the pod, where it is completed by
// the search list first, as pods are set up to do.
func (r *Resolver) Lookup(ctx context.Context, name string, search []string) ([]netip.Addr, error) {
	names := []string{dns.Fqdn(name)}
	if !strings.HasSuffix(name, ".") && !r.Knows(name) {
		names = nil
		for _, domain := range append(search[:len(search):len(search)], "") {
			names = append(names, dns.Fqdn(name+"."+domain))
		}
	}
	for _, whole := range names {
		var addrs []netip.Addr
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
			found, err := r.addresses(ctx, whole, kind)
			if err != nil {
				return nil, err
			}
			addrs = append(addrs, found...)
		}
		if len(addrs) > 0 {
			return addrs, nil
		}
	}
	return nil, errNoSuchName
}

// addresses are those of one family that a whole name has: none where there is no
// such name.
func (r *Resolver) addresses(ctx context.Context, name string, kind uint16) ([]netip.Addr, error) {
	var m, a dns.Msg
	query, err := m.SetQuestion(name, kind).Pack()
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", name, err)
	}
	answer, err := r.Answer(ctx, query)
	if err == nil {
		err = a.Unpack(answer)
	}
	if err == nil && a.Rcode != dns.RcodeSuccess && a.Rcode != dns.RcodeNameError {
		err = errors.New(dns.RcodeToString[a.Rcode])
	}
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", name, err)
	}
	var addrs []netip.Addr
	for _, record := range a.Answer {
		var ip []byte
		switch record := record.(type) {
		case *dns.A:
			ip = record.A
		case *dns.AAAA:
			ip = record.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, nil
}
