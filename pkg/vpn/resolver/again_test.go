package resolver

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// named is an answer in which who gave it stands as text.
func named(who string) Exchange {
	return func(_ context.Context, query []byte) ([]byte, error) {
		var q dns.Msg
		if err := q.Unpack(query); err != nil {
			return nil, err
		}
		a := new(dns.Msg).SetReply(&q)
		a.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{who}}}
		return a.Pack()
	}
}

// whoAnswers asks for a name under an ID, and returns who has answered.
func whoAnswers(t *testing.T, ask Exchange, name string, id uint16) string {
	t.Helper()
	q := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
	q.Id = id
	query, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ask(t.Context(), query)
	if err != nil {
		return err.Error()
	}
	var a dns.Msg
	if err := a.Unpack(got); err != nil || answers(q, got) != nil {
		t.Errorf("%s: %v, %v", name, &a, err)
		return ""
	}
	if len(a.Answer) == 0 {
		return dns.RcodeToString[a.Rcode]
	}
	return a.Answer[0].(*dns.TXT).Txt[0]
}

// TestComingBack lets a cluster that resolves through this machine send on what
// it doesn't know itself: each question ends, by the machine's own nameservers.
func TestComingBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		returns bool
		within  time.Duration
		want    string
	}{
		{"7.1.244.10.in-addr.arpa.", false, 300 * time.Millisecond, "outside"},
		{"7.1.244.10.in-addr.arpa.", true, 0, "outside"},
		{"db.example.", false, 300 * time.Millisecond, "outside"},
		{"db.example.", true, 0, "outside"},
		{"host.db.example.", true, 0, "outside"},
		{"web.shop.svc.cluster.local.", true, 0, "cluster"},
		{"www.example.", true, 0, "outside"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var machine Exchange
			var rounds atomic.Int32
			machine = Split(Inside{
				Domains: []string{"cluster.local"}, Foreign: []string{"db.example"},
				Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Returns: tt.returns,
				Answer: func(ctx context.Context, query []byte) ([]byte, error) {
					var q dns.Msg
					if err := q.Unpack(query); err != nil {
						return nil, err
					}
					if within(q.Question[0].Name, []string{"cluster.local"}, nil) {
						return named("cluster")(ctx, query)
					}
					if rounds.Add(1) > 10 {
						t.Errorf("%s goes round and round", tt.name)
						return named("nobody")(ctx, query)
					}
					return machine(ctx, query)
				},
			}, named("outside"))
			began := time.Now()
			if got := whoAnswers(t, machine, tt.name, 1); got != tt.want || time.Since(began) != tt.within {
				t.Errorf("%s: answered by %s after %v; want %s after %v", tt.name, got, time.Since(began), tt.want, tt.within)
			}
		})
	}
}

// TestSameQuestionTwice checks that two programs that ask the same at once get
// the cluster's answer, each under its own ID.
func TestSameQuestionTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		machine := Split(Inside{Foreign: []string{"db.example"}, Answer: func(ctx context.Context, query []byte) ([]byte, error) {
			time.Sleep(200 * time.Millisecond)
			return named("cluster")(ctx, query)
		}}, named("outside"))
		var programs sync.WaitGroup
		for id := range uint16(3) {
			programs.Go(func() {
				if got := whoAnswers(t, machine, "db.example.", id); got != "cluster" {
					t.Errorf("program %d is answered by %s", id, got)
				}
			})
		}
		programs.Wait()
	})
}

// TestNowhere checks what is said where nobody else can be asked.
func TestNowhere(t *testing.T) {
	t.Parallel()
	if got := whoAnswers(t, Nowhere, "db.example.", 5); got != "REFUSED" {
		t.Errorf("got %s", got)
	}
	if _, err := Nowhere(t.Context(), []byte("x")); err == nil {
		t.Error("nonsense is answered")
	}
}
