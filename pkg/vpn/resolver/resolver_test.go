package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const podHosts = `# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
10.244.1.7	web-0.web.default.svc.cluster.local	web-0

# Entries added by HostAliases.
10.1.2.3	Foo.local	bar.local
10.1.2.4	foo.local
fd00::3	foo.local
not-an-address	x
10.1.2.5
`

// zone is a nameserver that knows these records, and that other names don't
// exist.
func zone(records ...string) func(context.Context, []byte) ([]byte, error) {
	return func(_ context.Context, query []byte) ([]byte, error) {
		var q dns.Msg
		if err := q.Unpack(query); err != nil {
			return nil, err
		}
		a := new(dns.Msg).SetReply(&q)
		a.Rcode = dns.RcodeNameError
		for _, r := range records {
			rr, err := dns.NewRR(r)
			if err != nil {
				return nil, err
			}
			if !strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
				continue
			}
			a.Rcode = dns.RcodeSuccess
			if rr.Header().Rrtype == q.Question[0].Qtype {
				a.Answer = append(a.Answer, rr)
			}
		}
		return a.Pack()
	}
}

func stalled(ctx context.Context, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func question(name string, qtype uint16) []byte {
	query, err := new(dns.Msg).SetQuestion(name, qtype).SetEdns0(1232, false).Pack()
	if err != nil {
		panic(err)
	}
	return query
}

// text is an answer in a form that tests compare: the rcode, then what the
// records say.
func text(t testing.TB, answer []byte) string {
	t.Helper()
	var a dns.Msg
	if err := a.Unpack(answer); err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, rr := range a.Answer {
		values = append(values, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(values)
	return strings.TrimSpace(dns.RcodeToString[a.Rcode] + " " + strings.Join(values, " "))
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	r := New(Config{Hosts: podHosts, Exchange: zone(
		"db.default.svc.cluster.local. 5 IN A 10.96.0.9",
		"foo.local. 5 IN MX 10 mail.foo.local.",
		"9.0.96.10.in-addr.arpa. 5 IN PTR db.default.svc.cluster.local.",
	)})
	for _, tt := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"db.default.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.9"},
		{"db.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR"},
		{"nothing.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"9.0.96.10.in-addr.arpa.", dns.TypePTR, "NOERROR db.default.svc.cluster.local."},

		// The hosts file comes first.
		{"foo.local.", dns.TypeA, "NOERROR 10.1.2.3 10.1.2.4"},
		{"FOO.LOCAL.", dns.TypeAAAA, "NOERROR fd00::3"},
		{"bar.local.", dns.TypeAAAA, "NOERROR"},
		{"web-0.", dns.TypeA, "NOERROR 10.244.1.7"},
		{"localhost.", dns.TypeAAAA, "NOERROR ::1"},
		{"3.2.1.10.in-addr.arpa.", dns.TypePTR, "NOERROR foo.local."},
		{"7.1.244.10.in-addr.arpa.", dns.TypePTR, "NOERROR web-0.web.default.svc.cluster.local."},
		{"3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "NOERROR foo.local."},
		// It has addresses only; the rest is the nameserver's.
		{"foo.local.", dns.TypeMX, "NOERROR 10 mail.foo.local."},
		{"x.", dns.TypeA, "NXDOMAIN"},
	} {
		answer, err := r.Answer(context.Background(), question(tt.name, tt.qtype))
		if err != nil {
			t.Errorf("%s %s: %v", tt.name, dns.TypeToString[tt.qtype], err)
			continue
		}
		if got := text(t, answer); got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.name, dns.TypeToString[tt.qtype], got, tt.want)
		}
	}
}

// What a nameserver says is handed on byte for byte.
func TestAnswerKeepsAdditionalSection(t *testing.T) {
	t.Parallel()
	var want []byte
	r := New(Config{Exchange: func(_ context.Context, query []byte) ([]byte, error) {
		var q dns.Msg
		if err := q.Unpack(query); err != nil {
			return nil, err
		}
		a := new(dns.Msg).SetReply(&q)
		rr, err := dns.NewRR("db-0.db.svc.cluster.local. 5 IN A 10.244.0.9")
		a.Extra = append(a.Extra, rr)
		if err != nil {
			return nil, err
		}
		want, err = a.Pack()
		return want, err
	}})
	got, err := r.Answer(context.Background(), question("_pg._tcp.db.svc.cluster.local.", dns.TypeSRV))
	if err != nil || string(got) != string(want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
}

func TestStalledTunnelIsServfail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		before := time.Now()
		answer, err := New(Config{Exchange: stalled}).Answer(t.Context(), question("db.", dns.TypeA))
		if err != nil || text(t, answer) != "SERVFAIL" {
			t.Errorf("got %x, %v, want SERVFAIL", answer, err)
		}
		if took := time.Since(before); took > defaultTimeout {
			t.Errorf("it took %s, want at most %s", took, defaultTimeout)
		}
	})
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	other := question("other.", dns.TypeA)
	response := slices.Clone(other)
	response[2] |= 0x80
	status := slices.Clone(other)
	status[2] |= dns.OpcodeStatus << 3
	for _, tt := range []struct {
		name     string
		query    []byte
		exchange func(context.Context, []byte) ([]byte, error)
		want     string // "" for no answer
	}{
		{"empty", nil, nil, ""},
		{"a response", response, nil, ""},
		{"an opcode nobody has", status, nil, "NOTIMP"},
		{"no question", make([]byte, 12), nil, "FORMERR"},
		{"cut off", other[:15], nil, "FORMERR"},
		{"exchange fails", other, func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no") }, "SERVFAIL"},
		{"rubbish from the server", other, func(context.Context, []byte) ([]byte, error) { return []byte("x"), nil }, "SERVFAIL"},
		{"the query back", other, func(_ context.Context, q []byte) ([]byte, error) { return q, nil }, "SERVFAIL"},
		{"another name's answer", other, func(ctx context.Context, _ []byte) ([]byte, error) {
			return zone()(ctx, question("x.", dns.TypeA))
		}, "SERVFAIL"},
	} {
		answer, err := New(Config{Exchange: tt.exchange}).Answer(context.Background(), tt.query)
		if tt.want == "" {
			if err == nil {
				t.Errorf("%s: answered %x", tt.name, answer)
			}
			continue
		}
		if err != nil || text(t, answer) != tt.want {
			t.Errorf("%s: %x, %v, want %s", tt.name, answer, err, tt.want)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	t.Parallel()
	got := ParseResolvConf(`# made by the kubelet
nameserver 10.96.0.10
nameserver fe80::1%eth0
 nameserver nonsense
domain example.com
search default.svc.cluster.local svc.cluster.local. cluster.local .
options ndots:5 edns0
options timeout:1
; search nothing
nameserver
`)
	want := ResolvConf{
		Nameservers: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fe80::1%eth0")},
		Search:      []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
		Options:     []string{"ndots:5", "edns0", "timeout:1"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// serveDNS is a nameserver on loopback, by UDP and TCP at one port.
func serveDNS(t *testing.T, answer func(q *dns.Msg, udp bool) *dns.Msg) netip.AddrPort {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(packets.LocalAddr().String())
	listener, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Skipf("the UDP port is not free for TCP: %v", err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_, udp := w.RemoteAddr().(*net.UDPAddr)
		if a := answer(q, udp); a != nil {
			_ = w.WriteMsg(a)
		}
	})
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: listener, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := s.ActivateAndServe(); err != nil {
				t.Errorf("serving: %v", err)
			}
		})
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			serving.Wait()
		})
	}
	return addr
}

func TestNameservers(t *testing.T) {
	t.Parallel()
	refusing := serveDNS(t, func(q *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeRefused) })
	big := serveDNS(t, func(q *dns.Msg, udp bool) *dns.Msg {
		a := new(dns.Msg).SetReply(q)
		if udp {
			a.Truncated = true
			return a
		}
		for i := range 200 {
			rr, err := dns.NewRR(fmt.Sprintf("%s 5 IN A 10.0.0.%d", q.Question[0].Name, i))
			if err != nil {
				return nil
			}
			a.Answer = append(a.Answer, rr)
		}
		return a
	})
	closed := netip.MustParseAddrPort("127.0.0.1:1")
	query := question("web.", dns.TypeA)
	answer, err := Nameservers([]netip.AddrPort{closed, refusing, big})(context.Background(), query)
	if err != nil {
		t.Fatal(err)
	}
	var a dns.Msg
	if err := a.Unpack(answer); err != nil || len(a.Answer) != 200 || a.Truncated {
		t.Errorf("got %d records, truncated %v, %v, want 200", len(a.Answer), a.Truncated, err)
	}
	answer, err = Nameservers([]netip.AddrPort{refusing, closed})(context.Background(), query)
	if err != nil || text(t, answer) != "REFUSED" {
		t.Errorf("only a refusal: %x, %v, want REFUSED", answer, err)
	}
	if _, err := Nameservers([]netip.AddrPort{closed})(context.Background(), query); err == nil {
		t.Error("nobody there: no error")
	}
	if _, err := Nameservers(nil)(context.Background(), query); err == nil {
		t.Error("no nameserver: no error")
	}
}

// FuzzAnswer states that no query and no nameserver makes the resolver panic,
// and that an answer has the query's ID and question.
func FuzzAnswer(f *testing.F) {
	q := question("foo.local.", dns.TypeA)
	answer, err := zone("db. 5 IN A 10.0.0.1")(context.Background(), question("db.", dns.TypeA))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q, answer)
	f.Add(question("db.", dns.TypeA), answer)
	f.Add(question("3.2.1.10.in-addr.arpa.", dns.TypePTR), []byte{})
	f.Fuzz(func(t *testing.T, query, fromServer []byte) {
		exchange := func(context.Context, []byte) ([]byte, error) { return slices.Clone(fromServer), nil }
		r := New(Config{Hosts: podHosts, Exchange: exchange})
		got, err := r.Answer(context.Background(), slices.Clone(query))
		if err != nil {
			return
		}
		if len(got) < 12 || got[0] != query[0] || got[1] != query[1] || got[2]&0x80 == 0 {
			t.Fatalf("%x is no answer to %x", got, query)
		}
		var asked, a dns.Msg
		if asked.Unpack(query) != nil || len(asked.Question) != 1 || asked.Opcode != dns.OpcodeQuery {
			return
		}
		if err := a.Unpack(got); err != nil || len(a.Question) != 1 || !sameQuestion(a.Question[0], asked.Question[0]) {
			t.Fatalf("the question of %x is not that of %x (%v)", got, query, err)
		}
	})
}

func FuzzParseHosts(f *testing.F) {
	f.Add(podHosts)
	if seed, err := os.ReadFile(filepath.Join("/etc", "hosts")); err == nil {
		f.Add(string(seed))
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, addrs := range parseHosts(text).addrs {
			if !dns.IsFqdn(name) || len(addrs) == 0 {
				t.Errorf("%q has the addresses %v", name, addrs)
			}
		}
		ParseResolvConf(text)
	})
}
