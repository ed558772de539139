//go:build unix

package host

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func TestCollide(t *testing.T) {
	t.Parallel()
	has := []route{
		{netip.MustParsePrefix("0.0.0.0/0"), "eth0"},
		{netip.MustParsePrefix("192.168.1.0/24"), "eth0"},
		{netip.MustParsePrefix("10.0.0.0/8"), "wg0"},
		{netip.MustParsePrefix("172.17.0.0/16"), "docker0"},
	}
	for _, c := range []struct{ ours, refused, told string }{
		{ours: "100.64.0.0/16"},
		{ours: "10.96.0.0/12", refused: "10.0.0.0/8 by wg0"},
		{ours: "10.0.0.0/8", refused: "10.0.0.0/8 by wg0"},
		{ours: "172.17.3.0/24", refused: "172.17.0.0/16 by docker0"},
		{ours: "172.16.0.0/12", told: "172.17.0.0/16"},
		{ours: "fd00::/64"},
	} {
		notes, err := collide(prefixes(c.ours), has)
		switch {
		case c.refused == "" && err != nil, c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: error is %v, want %q", c.ours, err, c.refused)
		case strings.Join(notes, "") == "" != (c.told == "") || !strings.Contains(strings.Join(notes, ""), c.told):
			t.Errorf("%s: notes are %q, want %q", c.ours, notes, c.told)
		}
		if e, ok := errors.AsType[*Error](err); ok && e.Hint() == "" {
			t.Errorf("%s: no way out", c.ours)
		}
	}
}

func TestFreeAddresses(t *testing.T) {
	t.Parallel()
	own, dns, err := freeAddresses([]route{{netip.MustParsePrefix("198.19.64.0/24"), "x"}, {netip.MustParsePrefix("0.0.0.0/0"), "y"}})
	if err != nil || own != netip.MustParseAddr("198.19.65.1") || dns != netip.MustParseAddr("198.19.65.2") {
		t.Errorf("got %v, %v, %v", own, dns, err)
	}
	if _, _, err := freeAddresses([]route{{netip.MustParsePrefix("198.18.0.0/15"), "x"}}); err == nil {
		t.Error("an address was free in a range that is taken")
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	good := Config{Routes: prefixes("10.96.0.0/12", "fd00::/64"), Domains: []string{"cluster.local"}, Search: []string{"shop.svc.cluster.local"}}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]Config{
		"no routes":   {},
		"everything":  {Routes: prefixes("0.0.0.0/0")},
		"loopback":    {Routes: prefixes("127.0.0.0/8")},
		"multicast":   {Routes: prefixes("ff00::/8")},
		"line break":  {Routes: good.Routes, Search: []string{"a\nnameserver 1.2.3.4"}},
		"empty":       {Routes: good.Routes, Domains: []string{""}},
		"a path":      {Routes: good.Routes, Domains: []string{"../../passwd"}},
		"no address":  {Routes: []netip.Prefix{{}}},
		"a long name": {Routes: good.Routes, Domains: []string{strings.Repeat("a", 254)}},
	} {
		if err := c.check(); err == nil && name != "a path" {
			t.Errorf("%s was taken", name)
		} else if err == nil {
			t.Errorf("%s was taken: it would be a file's name", name)
		}
	}
}
