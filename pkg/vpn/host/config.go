//go:build unix

package host

import (
	"fmt"
	"net/netip"
	"strings"
)

// check refuses what the helper, which is root, must not be asked for.
func (c Config) check() error {
	if len(c.Routes) == 0 || len(c.Routes) > 1000 {
		return fmt.Errorf("%d routes", len(c.Routes))
	}
	for _, r := range c.Routes {
		a := r.Addr()
		if !r.IsValid() || r.Bits() == 0 || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			return fmt.Errorf("%s is nothing to route", r)
		}
	}
	for _, d := range append(c.Domains[:len(c.Domains):len(c.Domains)], c.Search...) {
		if err := checkDomain(d); err != nil {
			return err
		}
	}
	return nil
}

// checkDomain refuses what can't stand in a resolv.conf.
func checkDomain(d string) error {
	if d == "" || len(d) > 253 {
		return fmt.Errorf("%q is no domain", d)
	}
	for _, r := range d {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r) {
			return fmt.Errorf("%q is no domain", d)
		}
	}
	return nil
}

// route is one that the machine has already.
type route struct {
	to     netip.Prefix
	device string
}

// collide finds routes of the machine's own that ours would take something
// from: that is refused. One that lies within ours goes on, and takes something
// from us: that is only told.
func collide(ours []netip.Prefix, has []route) (notes []string, err error) {
	for _, o := range ours {
		for _, h := range has {
			switch {
			case h.to.Bits() == 0 || !h.to.Overlaps(o):
			case h.to.Bits() <= o.Bits():
				return nil, &Error{
					Problem: fmt.Sprintf("the cluster's range %s collides with this machine's route to %s by %s", o, h.to, h.device),
					Way:     "take that network down for the while (a VPN, a docker network), or use --method inject-tcp, which leaves the machine's routes alone",
				}
			default:
				notes = append(notes, fmt.Sprintf("%s, a part of the cluster's range %s, stays this machine's own (%s)", h.to, o, h.device))
			}
		}
	}
	return notes, nil
}

// The device's own addresses are taken from the benchmarking range (RFC 2544,
// 198.18.0.0/15), which no network uses: the machine's, and the one that DNS is
// answered at.
func freeAddresses(has []route) (own, dns netip.Addr, err error) {
	for third := 64; third < 256; third++ {
		net := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, byte(third), 0}), 30)
		free := true
		for _, h := range has {
			free = free && (h.to.Bits() == 0 || !h.to.Overlaps(net))
		}
		if free {
			own = net.Addr().Next()
			return own, own.Next(), nil
		}
	}
	return own, dns, &Error{Problem: "no address is free for the device in 198.19.0.0/16", Way: "use --method inject-tcp"}
}

// ownV6 is the device's address where a range of the cluster's is IPv6: from the
// unique local ones (RFC 4193), with a prefix drawn by lot once.
var ownV6 = netip.MustParseAddr("fd9c:5f1a:7e1e::1")
