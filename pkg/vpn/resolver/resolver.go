// Package resolver answers DNS queries as the pod's own resolver would: from
// the pod's hosts file first, then from the pod's nameservers.
//
// It knows no network: messages come in and go out as bytes.
package resolver

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// defaultTimeout is what a stub resolver waits for a nameserver, at most
	// twice as long.
	defaultTimeout = 10 * time.Second

	// hostsTTL is how many seconds an answer from the hosts file may be kept.
	hostsTTL = 5
)

// errNoQuery is returned for what deserves no answer.
var errNoQuery = errors.New("not a DNS query")

// Config is what a resolver works with. Exchange must be set.
type Config struct {
	// Exchange has one of the pod's nameservers answer a query. It is called
	// by many goroutines at once.
	Exchange func(ctx context.Context, query []byte) ([]byte, error)
	// Hosts is the text of the pod's hosts file, host aliases and the pod's
	// own name included.
	Hosts string
	// Timeout is how long Exchange may take before the answer is SERVFAIL; 10
	// seconds when zero.
	Timeout time.Duration
	// Log gets what goes wrong with a query, at debug level.
	Log *slog.Logger
}

// Resolver answers queries. It is safe for concurrent use and holds nothing
// that must be closed.
type Resolver struct {
	exchange func(context.Context, []byte) ([]byte, error)
	hosts    hosts
	timeout  time.Duration
	log      *slog.Logger
}

// New makes a resolver.
func New(c Config) *Resolver {
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Resolver{exchange: c.Exchange, hosts: parseHosts(c.Hosts), timeout: c.Timeout, log: c.Log}
}

// Answer answers one query. The answer has the query's ID and question, and
// the nameserver's bytes where one was asked; it is SERVFAIL where none could
// be. Only for what is no query there is an error instead.
func (r *Resolver) Answer(ctx context.Context, query []byte) ([]byte, error) {
	q, refusal, err := parse(query)
	if err != nil || refusal != nil {
		return refusal, err
	}
	if answer := r.hosts.answer(q); answer != nil {
		return answer.Pack()
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	answer, err := r.exchange(ctx, query)
	if err == nil {
		err = answers(q, answer)
	}
	if err != nil {
		r.log.Debug("dns: asking the pod's nameservers", "name", q.Question[0].Name, "error", err)
		return failure(q, dns.RcodeServerFailure)
	}
	return answer, nil
}

// Knows reports whether the pod's hosts file has that name.
func (r *Resolver) Knows(name string) bool {
	_, known := r.hosts.addrs[dns.CanonicalName(name)]
	return known
}

// parse reads a query with one question. A message that is a query but can't
// be answered gets a refusal.
func parse(query []byte) (q *dns.Msg, refusal []byte, err error) {
	q = new(dns.Msg)
	if err := q.Unpack(query); err != nil {
		// With its header, a query can at least be told that it is malformed.
		var h dns.Msg
		if len(query) < 12 || h.Unpack(append(append([]byte(nil), query[:4]...), make([]byte, 8)...)) != nil || h.Response {
			return nil, nil, errNoQuery
		}
		refusal, err = failure(&h, dns.RcodeFormatError)
		return nil, refusal, err
	}
	switch {
	case q.Response:
		return nil, nil, errNoQuery
	case q.Opcode != dns.OpcodeQuery:
		refusal, err = failure(q, dns.RcodeNotImplemented)
		return nil, refusal, err
	case len(q.Question) != 1:
		refusal, err = failure(q, dns.RcodeFormatError)
		return nil, refusal, err
	}
	return q, nil, nil
}

// reply is an answer without records yet.
func reply(q *dns.Msg) *dns.Msg {
	a := &dns.Msg{MsgHdr: dns.MsgHdr{
		Id: q.Id, Response: true, Opcode: q.Opcode, RecursionDesired: q.RecursionDesired, RecursionAvailable: true,
	}}
	a.Question = append(a.Question, q.Question...)
	if edns := q.IsEdns0(); edns != nil {
		a.SetEdns0(dns.MaxMsgSize, edns.Do())
	}
	return a
}

// failure is an answer that only says why there is none.
func failure(q *dns.Msg, rcode int) ([]byte, error) {
	a := reply(q)
	a.Rcode = rcode
	return a.Pack()
}

// answers returns an error if the message does not answer q.
func answers(q *dns.Msg, message []byte) error {
	var a dns.Msg
	if err := a.Unpack(message); err != nil {
		return err
	}
	if !a.Response || a.Id != q.Id {
		return errors.New("the answer is to another query")
	}
	if len(a.Question) != 1 || !sameQuestion(a.Question[0], q.Question[0]) {
		return errors.New("the answer is to another question")
	}
	return nil
}

func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}
