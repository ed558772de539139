package proxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// sockets are those of a nameserver: UDP and TCP on the same port.
type sockets struct {
	pc net.PacketConn
	l  net.Listener
}

// listenDNS opens the sockets of n nameservers at 127.0.0.1 and following, all on one port that is free at each.
func listenDNS(t *testing.T, n int) (all []sockets, port uint16) {
	t.Helper()
	for range 100 {
		all, port = nil, 0
		var err error
		for i := range n {
			var s sockets
			addr := netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)})
			if s.pc, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, port).String()); err != nil {
				break
			}
			port = uint16(s.pc.LocalAddr().(*net.UDPAddr).Port)
			if s.l, err = net.Listen("tcp", netip.AddrPortFrom(addr, port).String()); err != nil {
				_ = s.pc.Close()
				break
			}
			all = append(all, s)
		}
		if err == nil {
			return all, port
		}
		for _, s := range all {
			_ = s.pc.Close()
			_ = s.l.Close()
		}
	}
	t.Fatal("no port is free for all nameservers")
	return nil, 0
}

// serveDNS answers on s for the time of the test; asked tells how often.
func serveDNS(t *testing.T, s sockets, answer func(w dns.ResponseWriter, q *dns.Msg)) (asked func() int) {
	t.Helper()
	var mu sync.Mutex
	count := 0
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		count++
		mu.Unlock()
		answer(w, q)
	})
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // after the shutdowns
	for _, srv := range []*dns.Server{{PacketConn: s.pc, Handler: handler}, {Listener: s.l, Handler: handler}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() {
			if err := srv.ActivateAndServe(); err != nil {
				t.Error(err)
			}
		})
		<-started
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
}

func rcode(code int) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, code)) }
}

func silent(dns.ResponseWriter, *dns.Msg) {}

// long answers with more than fits into a UDP packet, which it says there.
func long(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	if w.LocalAddr().Network() == "udp" {
		m.Truncated = true
	} else {
		for i := range 100 {
			m.Answer = append(m.Answer, &dns.TXT{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1},
				Txt: []string{fmt.Sprint(i, strings.Repeat("x", 100))},
			})
		}
	}
	_ = w.WriteMsg(m)
}

func TestExchange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		servers []func(dns.ResponseWriter, *dns.Msg)
		want    int // rcode, or -1 for an error
		answers int
		asked   []int
	}{
		{"first answers", []func(dns.ResponseWriter, *dns.Msg){rcode(dns.RcodeSuccess), rcode(dns.RcodeNameError)}, dns.RcodeSuccess, 0, []int{1, 0}},
		{"no such name is an answer", []func(dns.ResponseWriter, *dns.Msg){rcode(dns.RcodeNameError), rcode(dns.RcodeSuccess)}, dns.RcodeNameError, 0, []int{1, 0}},
		{"refused", []func(dns.ResponseWriter, *dns.Msg){rcode(dns.RcodeRefused), rcode(dns.RcodeNameError)}, dns.RcodeNameError, 0, []int{1, 1}},
		{"silent", []func(dns.ResponseWriter, *dns.Msg){silent, rcode(dns.RcodeSuccess)}, dns.RcodeSuccess, 0, []int{1, 1}},
		{"all refuse", []func(dns.ResponseWriter, *dns.Msg){rcode(dns.RcodeRefused), rcode(dns.RcodeRefused)}, dns.RcodeRefused, 0, []int{1, 1}},
		{"truncated", []func(dns.ResponseWriter, *dns.Msg){long}, dns.RcodeSuccess, 100, []int{2}},
		{"all silent", []func(dns.ResponseWriter, *dns.Msg){silent}, -1, 0, []int{2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			all, port := listenDNS(t, len(tt.servers))
			var counts []func() int
			conf := "search ns.svc.cluster.local\noptions ndots:5 timeout:1\n"
			for i, s := range all {
				counts = append(counts, serveDNS(t, s, tt.servers[i]))
				conf += fmt.Sprintf("nameserver 127.0.0.%d\n", i+1)
			}
			path := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
				t.Fatal(err)
			}
			names := nameservers{path: path, port: port}
			query := new(dns.Msg).SetQuestion("web.ns.svc.cluster.local.", dns.TypeTXT)
			raw, err := query.Pack()
			if err != nil {
				t.Fatal(err)
			}
			answer, err := names.exchange(testContext(t), raw)
			if (err != nil) != (tt.want < 0) {
				t.Fatalf("exchange: %v", err)
			}
			if err == nil {
				var m dns.Msg
				if err := m.Unpack(answer); err != nil {
					t.Fatal(err)
				}
				if m.Id != query.Id || m.Rcode != tt.want || len(m.Answer) != tt.answers {
					t.Errorf("answer: %v", &m)
				}
			}
			var asked []int
			for _, count := range counts {
				asked = append(asked, count())
			}
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("the servers were asked %v times, want %v", asked, tt.asked)
			}
		})
	}
}

// TestExchangeThroughTunnel asks whatever nameserver the machine has, or none: an answer or an error, not a hang.
func TestExchangeThroughTunnel(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	if _, err := c.Exchange(testContext(t), []byte("short")); err == nil {
		t.Error("a message without a header: want an error")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	query, err := new(dns.Msg).SetQuestion("localhost.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := c.Exchange(ctx, query); err == nil && !bytes.Equal(answer[:2], query[:2]) {
		t.Errorf("the answer %x is not for the query %x", answer, query)
	}
}

func TestParseResolvConf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"", "[127.0.0.1] 5s 2"},
		{"nameserver 10.96.0.10\nsearch a b\noptions ndots:5\n", "[10.96.0.10] 5s 2"},
		{"nameserver fd00::a\nnameserver 10.0.0.1\noptions timeout:1 attempts:3 edns0", "[fd00::a 10.0.0.1] 1s 3"},
		{"nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4", "[1.1.1.1 2.2.2.2 3.3.3.3] 5s 2"},
		{"nameserver nonsense\noptions timeout:-1 attempts:x timeout:1000", "[127.0.0.1] 30s 2"},
	} {
		rc := parseResolvConf(tt.text)
		if got := fmt.Sprint(rc.servers, rc.timeout, rc.attempts); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 10.96.0.10\nsearch a b\noptions ndots:5 timeout:3\n")
	f.Fuzz(func(t *testing.T, text string) {
		rc := parseResolvConf(text)
		if len(rc.servers) < 1 || len(rc.servers) > 3 || rc.timeout < time.Second || rc.attempts < 1 {
			t.Errorf("%q is %+v", text, rc)
		}
	})
}
