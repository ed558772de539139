package resolver

import (
	"context"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	say := func(who string) Exchange {
		return func(context.Context, []byte) ([]byte, error) { return []byte(who), nil }
	}
	ranges := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:10::/64")}
	split := Split([]string{"cluster.local", "db.corp."}, ranges, say("inside"), say("outside"))
	for name, want := range map[string]string{
		"web.shop.svc.cluster.local.": "inside",
		"CLUSTER.local.":              "inside",
		"mycluster.local.":            "outside",
		"web.":                        "outside",
		"db.corp.":                    "inside",
		"corp.":                       "outside",
		"1.0.96.10.in-addr.arpa.":     "inside",
		"1.0.200.10.in-addr.arpa.":    "outside",
	} {
		var m dns.Msg
		m.SetQuestion(name, dns.TypeA)
		query, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := split(t.Context(), query); err != nil || string(got) != want {
			t.Errorf("%s is asked %s, %v; want %s", name, got, err, want)
		}
	}
	if got, _ := split(t.Context(), []byte("nonsense")); string(got) != "outside" {
		t.Errorf("nonsense is asked %s", got)
	}
}

func TestReversed(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"fd00:10::1", "2001:db8::abcd:9", "10.96.0.1"} {
		addr := netip.MustParseAddr(text)
		name, err := dns.ReverseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := reversed(name[:len(name)-1]); !ok || got != addr {
			t.Errorf("%s is %v", name, got)
		}
	}
	for _, name := range []string{"ip6.arpa", "1.ip6.arpa", "1.2.3.4.arpa", "300.2.3.4.in-addr.arpa", ""} {
		if got, ok := reversed(name); ok {
			t.Errorf("%q is %v", name, got)
		}
	}
}

// Whatever name is asked for, what it is reversed to is that name's address.
func FuzzReversed(f *testing.F) {
	f.Add("1.0.96.10.in-addr.arpa")
	f.Add("a.b.ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		addr, ok := reversed(name)
		if ok && !addr.IsValid() {
			t.Errorf("%q is %v", name, addr)
		}
	})
}
