package sandbox

import "net/netip"

// The addresses that are a sandbox's own. Its network namespace is too, so
// every sandbox has the same. They are of the ranges for benchmarks (RFC 2544)
// and unique local addresses (RFC 4193), which clusters hardly use.
func ownAddresses() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("fd00:7e1e:5a2d::1")}
}

// dnsAddress is where a sandbox's resolv.conf sends queries: to the device.
func dnsAddress() netip.Addr { return netip.MustParseAddr("198.18.0.2") }

// dnsAddress6 is the same for a sandbox that has no IPv4.
func dnsAddress6() netip.Addr { return netip.MustParseAddr("fd00:7e1e:5a2d::2") }

// addresses are what the device of a sandbox gets, and its nameserver.
func addresses(pods []netip.Addr) (device []netip.Addr, server netip.Addr) {
	for _, a := range pods {
		a = a.Unmap()
		if a.IsValid() && !a.IsLoopback() && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !a.IsMulticast() {
			device = append(device, a.WithZone(""))
		}
	}
	if len(device) == 0 {
		device = ownAddresses()
	}
	for _, a := range device {
		if a.Is4() {
			return device, dnsAddress()
		}
	}
	return device, dnsAddress6()
}
