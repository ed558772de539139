package vpn

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// maxQueries is how many queries are answered at once; others wait.
const maxQueries = 512

// serveDNSOverUDP answers the queries of one flow.
func (e *Engine) serveDNSOverUDP(ctx context.Context, c net.Conn) {
	e.serveDNS(ctx, c,
		func() ([]byte, error) {
			buf := make([]byte, maxDatagram)
			n, err := c.Read(buf)
			return append([]byte(nil), buf[:n]...), err
		},
		func(query, answer []byte) error {
			_, err := c.Write(fitUDP(query, answer))
			return err
		})
}

// serveDNSOverTCP answers the queries of one connection, in the order in which
// the answers come (RFC 7766), and closes it.
func (e *Engine) serveDNSOverTCP(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }()
	var length [2]byte
	e.serveDNS(ctx, c,
		func() ([]byte, error) {
			if _, err := io.ReadFull(c, length[:]); err != nil {
				return nil, err
			}
			query := make([]byte, binary.BigEndian.Uint16(length[:]))
			_, err := io.ReadFull(c, query)
			return query, err
		},
		func(_, answer []byte) error {
			if len(answer) > dns.MaxMsgSize {
				return nil
			}
			message := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer))) //nolint:gosec // checked above
			_, err := c.Write(append(message, answer...))
			return err
		})
}

// serveDNS answers queries until none has come for the idle time, read or
// write fails, or ctx ends. All answers have been written when it returns.
func (e *Engine) serveDNS(ctx context.Context, c net.Conn, read func() ([]byte, error), write func(query, answer []byte) error) {
	ctx, cancel := context.WithCancel(ctx)
	var flow sync.WaitGroup
	defer flow.Wait()
	flow.Go(func() { // ends the read when the engine closes
		<-ctx.Done()
		_ = c.SetDeadline(time.Unix(1, 0))
	})
	defer cancel()

	var answers sync.WaitGroup
	defer answers.Wait()
	var mu sync.Mutex // guards write
	for {
		_ = c.SetReadDeadline(time.Now().Add(dnsIdle))
		if ctx.Err() != nil {
			return
		}
		query, err := read()
		if err != nil {
			return
		}
		select {
		case e.dnsSlot <- struct{}{}:
		case <-ctx.Done():
			return
		}
		answers.Go(func() {
			defer func() { <-e.dnsSlot }()
			answer := e.answer(ctx, query)
			if answer == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if err := write(query, answer); err != nil {
				e.log.Debug("dns: writing an answer", "error", err)
			}
		})
	}
}

// answer asks whoever answers, and says SERVFAIL for them if they can't. It is
// nil for what is no query at all.
func (e *Engine) answer(ctx context.Context, query []byte) []byte {
	answer, err := e.dns(ctx, query)
	if err == nil {
		return answer
	}
	e.log.Debug("dns: answering", "error", err)
	var q dns.Msg
	if q.Unpack(query) != nil || q.Response {
		return nil
	}
	answer, err = new(dns.Msg).SetRcode(&q, dns.RcodeServerFailure).Pack()
	if err != nil {
		return nil
	}
	return answer
}

// fitUDP cuts an answer to the size that the query's sender takes by UDP, and
// says so in it, so that they ask again by TCP. An answer that fits is left as
// it is.
func fitUDP(query, answer []byte) []byte {
	size := dns.MinMsgSize
	if len(answer) <= size {
		return answer
	}
	var q, a dns.Msg
	if q.Unpack(query) != nil {
		return answer
	}
	if edns := q.IsEdns0(); edns != nil {
		size = max(size, int(edns.UDPSize()))
	}
	if len(answer) <= size {
		return answer
	}
	if a.Unpack(answer) != nil {
		a.SetReply(&q)
		a.Truncated = true
	}
	a.Truncate(size)
	cut, err := a.Pack()
	if err != nil {
		return answer
	}
	return cut
}
