package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/crypto/ssh"
)

// pingTime is how long the agent waits for an echo reply.
const pingTime = 10 * time.Second

// Ping sends an ICMP echo request with payload from the pod to addr and returns when the reply has come. Its errors
// are those of the network (EHOSTUNREACH, ETIMEDOUT after 10 s), or EPERM or EACCES where the pod may not ping.
func (c *Client) Ping(ctx context.Context, addr netip.Addr, payload []byte) error {
	number := c.numbers.Add(1)
	ch, reqs, err := c.open(ctx, channelPing, ssh.Marshal(openPing{Addr: addr.String(), Number: number, Payload: payload}), number)
	if err != nil {
		return fmt.Errorf("ping %v from the pod: %w", addr, err)
	}
	c.tasks.start(func() { ssh.DiscardRequests(reqs) })
	_ = ch.Close() // fails when the agent was first
	return nil
}

// openPing is the agent's end of Ping.
func (s *session) openPing(ctx context.Context, nc ssh.NewChannel) {
	var p openPing
	if err := ssh.Unmarshal(nc.ExtraData(), &p); err != nil {
		refuse(nc, err)
		return
	}
	addr, err := netip.ParseAddr(p.Addr)
	if err != nil {
		refuse(nc, err)
		return
	}
	ctx, done := s.cancellable(ctx, p.Number)
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	err = ping(ctx, addr, p.Payload)
	cancel()
	done()
	if err != nil {
		refuse(nc, err)
		return
	}
	s.answer(nc, nil)
}
