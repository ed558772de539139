package resolver

import (
	"net/netip"
	"strings"
)

// ResolvConf is what a resolv.conf file says.
type ResolvConf struct {
	Nameservers []netip.Addr
	Search      []string // domains, without a dot at the end
	Options     []string // such as "ndots:5"
}

// ParseResolvConf reads the text of a resolv.conf file as resolv.conf(5) has
// it: the last search or domain line counts, and what can't be read doesn't.
func ParseResolvConf(text string) ResolvConf {
	var c ResolvConf
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if addr, err := netip.ParseAddr(fields[1]); err == nil {
				c.Nameservers = append(c.Nameservers, addr)
			}
		case "search":
			c.Search = domains(fields[1:])
		case "domain":
			c.Search = domains(fields[1:2])
		case "options":
			c.Options = append(c.Options, fields[1:]...)
		}
	}
	return c
}

// domains are the names without their dots at the end, the root left out.
func domains(names []string) []string {
	var ds []string
	for _, n := range names {
		if n = strings.TrimSuffix(n, "."); n != "" {
			ds = append(ds, n)
		}
	}
	return ds
}
