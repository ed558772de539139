package resolver

import (
	"context"
	"net"
	"testing"

	"github.com/miekg/dns"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	r := New(Config{
		Hosts: "10.1.2.3 aliased",
		Exchange: func(_ context.Context, query []byte) ([]byte, error) {
			var q dns.Msg
			if err := q.Unpack(query); err != nil {
				return nil, err
			}
			question := q.Question[0]
			header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET}
			a := new(dns.Msg).SetReply(&q)
			switch {
			case question.Name == "broken.shop.svc.cluster.local.":
				a.Rcode = dns.RcodeServerFailure
			case question.Name == "web.shop.svc.cluster.local." && question.Qtype == dns.TypeA:
				a.Answer = []dns.RR{&dns.A{Hdr: header, A: net.IPv4(10, 0, 0, 1)}}
			case question.Name == "db.corp." && question.Qtype == dns.TypeAAAA:
				a.Answer = []dns.RR{&dns.AAAA{Hdr: header, AAAA: net.ParseIP("fd00::1")}}
			default:
				a.Rcode = dns.RcodeNameError
			}
			return a.Pack()
		},
	})
	for name, want := range map[string]string{
		"web": "10.0.0.1", "web.shop": "10.0.0.1", "web.": "", "db.corp": "fd00::1", "db.corp.": "fd00::1",
		"aliased": "10.1.2.3", "nobody": "", "broken": "",
	} {
		got, err := r.Lookup(t.Context(), name, []string{"shop.svc.cluster.local", "svc.cluster.local"})
		switch {
		case want == "" && err == nil:
			t.Errorf("%s has the addresses %v", name, got)
		case want != "" && (err != nil || len(got) != 1 || got[0].String() != want):
			t.Errorf("%s has the addresses %v, %v; want %s", name, got, err, want)
		}
	}
}
