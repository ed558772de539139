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
	split := Split(Inside{
		Domains: []string{"cluster.local", "db.corp."}, Ranges: ranges, Answer: say("inside"),
		Knows: func(name string) bool { return name == "aliased.example." },
	}, say("outside"))
	for name, want := range map[string]string{
		"web.shop.svc.cluster.local.": "inside",
		"CLUSTER.local.":              "inside",
		"mycluster.local.":            "outside",
		"web.":                        "outside",
		"db.corp.":                    "inside",
		"corp.":                       "outside",
		"aliased.example.":            "inside",
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

// Names that a pod would complete are asked inside first, by their whole name, and
// the answer is to what was asked.
func TestSplitCompletes(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"web.shop.svc.cluster.local.": true, "0.db.shop.svc.cluster.local.": true}
	answer := func(where string) Exchange {
		return func(_ context.Context, query []byte) ([]byte, error) {
			var q dns.Msg
			if err := q.Unpack(query); err != nil {
				return nil, err
			}
			name := q.Question[0].Name
			if where == "outside" || known[name] {
				a := new(dns.Msg).SetReply(&q)
				a.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{where}}}
				return a.Pack()
			}
			return new(dns.Msg).SetRcode(&q, dns.RcodeNameError).Pack()
		}
	}
	inside := Inside{
		Domains: []string{"cluster.local"}, Search: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"},
		Answer: answer("inside"),
	}
	stalled := inside
	stalled.Answer = func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, c := range []struct {
		in         Inside
		name, want string
	}{
		{inside, "web.shop.", "inside"},
		{inside, "Web.Shop.", "inside"},
		{inside, "0.db.shop.", "inside"},
		{inside, "web.shop.svc.", "inside"},
		{inside, "books.shop.", "outside"}, // a domain of the world's with the namespace's name
		{inside, "shop.", "outside"},
		{stalled, "web.shop.", "outside"},
		{stalled, "example.org.", "outside"},
	} {
		var q, a dns.Msg
		q.SetQuestion(c.name, dns.TypeTXT)
		query, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Split(c.in, answer("outside"))(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Unpack(got); err != nil || answers(&q, got) != nil || len(a.Answer) != 1 {
			t.Fatalf("%s: %v, %v", c.name, &a, err)
		}
		record, ok := a.Answer[0].(*dns.TXT)
		if !ok || record.Hdr.Name != c.name || record.Txt[0] != c.want {
			t.Errorf("%s has the answer %v; want %s", c.name, a.Answer[0], c.want)
		}
	}
}

// What can't be the cluster's is never asked there, so that it waits for nothing.
func TestSplitAsksOutsideAtOnce(t *testing.T) {
	t.Parallel()
	split := Split(Inside{
		Domains: []string{"cluster.local"}, Search: []string{"shop.svc.cluster.local", "svc.cluster.local"},
		Answer: func(context.Context, []byte) ([]byte, error) {
			t.Error("the cluster was asked")
			return nil, context.DeadlineExceeded
		},
	}, func(context.Context, []byte) ([]byte, error) { return []byte("outside"), nil })
	for _, name := range []string{"example.org.", "www.example.org.", "web.", "web.other."} {
		var m dns.Msg
		m.SetQuestion(name, dns.TypeA)
		query, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := split(t.Context(), query); err != nil || string(got) != "outside" {
			t.Errorf("%s is asked %s, %v", name, got, err)
		}
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
		if got, ok := reverse(name[:len(name)-1]); !ok || got != addr {
			t.Errorf("%s is %v", name, got)
		}
	}
	for _, name := range []string{"ip6.arpa", "1.ip6.arpa", "1.2.3.4.arpa", "300.2.3.4.in-addr.arpa", ""} {
		if got, ok := reverse(name); ok {
			t.Errorf("%q is %v", name, got)
		}
	}
}

// Whatever name is asked for, what it is reversed to is that name's address.
func FuzzReversed(f *testing.F) {
	f.Add("1.0.96.10.in-addr.arpa")
	f.Add("a.b.ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		addr, ok := reverse(name)
		if ok && !addr.IsValid() {
			t.Errorf("%q is %v", name, addr)
		}
	})
}
