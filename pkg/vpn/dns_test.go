package vpn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var dnsServer = netip.AddrPortFrom(dnsAddr, 53)

// answerWith answers with that many A records, and nothing else.
func answerWith(records int) func(context.Context, []byte) ([]byte, error) {
	return func(_ context.Context, query []byte) ([]byte, error) {
		var q dns.Msg
		if err := q.Unpack(query); err != nil {
			return nil, err
		}
		a := new(dns.Msg).SetReply(&q)
		for i := range records {
			rr, err := dns.NewRR(fmt.Sprintf("%s 5 IN A 10.0.%d.%d", q.Question[0].Name, i/256, i%256))
			if err != nil {
				return nil, err
			}
			a.Answer = append(a.Answer, rr)
		}
		return a.Pack()
	}
}

func startWithDNS(t testing.TB, answer func(context.Context, []byte) ([]byte, error)) client {
	t.Helper()
	return startClient(t, startEngine(t, Config{
		Dialer: refusing(errors.New("DNS must not be dialled")), DNS: answer, DNSAddr: dnsAddr,
	}))
}

func askTCP(t *testing.T, c net.Conn, query *dns.Msg) *dns.Msg {
	t.Helper()
	conn := &dns.Conn{Conn: c}
	if err := conn.WriteMsg(query); err != nil {
		t.Fatal(err)
	}
	a, err := conn.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDNS(t *testing.T) {
	t.Parallel()
	const many = 500 // more than fit in 512 or 4096 bytes
	plain := new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	edns := plain.Copy().SetEdns0(4096, false)
	huge := plain.Copy().SetEdns0(65000, false)
	for _, tt := range []struct {
		name    string
		query   *dns.Msg
		tcp     bool
		records int
		cut     bool
	}{
		{name: "small", query: plain, records: 1},
		{name: "small over TCP", query: plain, tcp: true, records: 1},
		{name: "big", query: plain, records: many, cut: true},
		{name: "big with EDNS", query: edns, records: many, cut: true},
		{name: "big with room", query: huge, records: many},
		{name: "big over TCP", query: plain, tcp: true, records: many},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := startWithDNS(t, answerWith(tt.records))
			var a *dns.Msg
			if tt.tcp {
				a = askTCP(t, mustDial(t, c, dnsServer), tt.query)
			} else {
				a = askUDP(t, c.dialUDP(t, dnsServer), tt.query)
			}
			if a.Id != tt.query.Id {
				t.Errorf("the answer's ID is %d, want %d", a.Id, tt.query.Id)
			}
			if a.Truncated != tt.cut || (len(a.Answer) == tt.records) == tt.cut {
				t.Errorf("%d records, truncated %v; want %d records, truncated %v", len(a.Answer), a.Truncated, tt.records, tt.cut)
			}
		})
	}
}

func askUDP(t *testing.T, c net.Conn, query *dns.Msg) *dns.Msg {
	t.Helper()
	message, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(message); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, maxDatagram)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var a dns.Msg
	if err := a.Unpack(buf[:n]); err != nil {
		t.Fatal(err)
	}
	return &a
}

func TestDNSErrorIsServfail(t *testing.T) {
	t.Parallel()
	c := startWithDNS(t, func(context.Context, []byte) ([]byte, error) { return nil, errors.New("the tunnel stalls") })
	a := askUDP(t, c.dialUDP(t, dnsServer), new(dns.Msg).SetQuestion("web.", dns.TypeA))
	if a.Rcode != dns.RcodeServerFailure || len(a.Question) != 1 {
		t.Errorf("got %v, want SERVFAIL with its question", a)
	}
}

// One query that waits does not hold up the others on the same connection.
func TestDNSAnswersAsTheyCome(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	c := startWithDNS(t, func(ctx context.Context, query []byte) ([]byte, error) {
		var q dns.Msg
		if err := q.Unpack(query); err != nil {
			return nil, err
		}
		if q.Question[0].Name == "slow." {
			<-release
		}
		return answerWith(1)(ctx, query)
	})
	conn := &dns.Conn{Conn: mustDial(t, c, dnsServer)}
	for _, name := range []string{"slow.", "fast."} {
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion(name, dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"fast.", "slow."} {
		a, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Question[0].Name; got != want {
			t.Errorf("the answer for %s came, want the one for %s", got, want)
		}
		if want == "fast." {
			close(release)
		}
	}
}

func FuzzFitUDP(f *testing.F) {
	q := new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	query, err := q.Pack()
	if err != nil {
		f.Fatal(err)
	}
	answer, err := answerWith(100)(context.Background(), query)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(query, answer)
	f.Add(query, make([]byte, 600))
	f.Fuzz(func(t *testing.T, query, answer []byte) {
		var q dns.Msg
		fit := fitUDP(query, answer)
		if q.Unpack(query) != nil {
			return // whoever sent that gets what the server said
		}
		size := dns.MinMsgSize
		if edns := q.IsEdns0(); edns != nil {
			size = max(size, int(edns.UDPSize()))
		}
		if len(fit) > size && len(fit) >= len(answer) {
			var a dns.Msg
			if a.Unpack(answer) == nil {
				t.Errorf("an answer of %d bytes, and the sender takes %d", len(fit), size)
			}
		}
	})
}
