package proxy

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/telepresence/telepresence/pkg/proxy/gate"
)

// A channel's window lets 2 MiB be under way, which is little where the other end is far. A flow that turns out to be
// a long one therefore goes over several channels, its stripes, in each direction on its own:
//
//  1. When the tunnel begins, each end measures the round trip. A short one needs no stripes.
//  2. When the sender has sent bondAfter bytes, it chooses from which byte of the stream on there shall be stripes, and opens stripeCount-1 more channels, each
//     with that number. The other end notes it before it confirms the first.
//  3. From that byte on, the stream's chunks of stripeChunk bytes go over the stripes in turn, the flow's own channel
//     first. Nothing stands before a chunk: both ends count.
//
// The end of the stream is EOF on all stripes.
const (
	stripeCount = 8
	stripeChunk = 64 << 10
	stripesMost = 16
	bondAfter   = 1 << 20
	bondAhead   = 1 << 20 // where stripes begin, from where the sender is when it decides
	bondRTT     = 3 * time.Millisecond
)

// bond is the channel of a flow, and its stripes when it has some. One goroutine at a time may read, and one write.
type bond struct {
	ssh.Channel
	t      *tunnel
	number uint32 // of the flow

	read    uint64 // bytes read so far
	in      atomic.Pointer[stripes]
	written uint64
	decided bool // whether there shall be stripes for writing
	out     atomic.Pointer[stripes]
	opening chan error // until the stripes for writing are open
}

// stripes are the channels over which the stream goes from a byte on.
type stripes struct {
	start uint64

	mu     sync.Mutex // guards the fields below
	more   gate.Gate
	all    []ssh.Channel // nil where one is still to come; the flow's own is the first
	closed bool
}

// at returns the channel of the byte off of the stream, once it is there.
func (s *stripes) at(off uint64) (ssh.Channel, error) {
	i := (off - s.start) / stripeChunk % uint64(len(s.all))
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.all[i] == nil {
		if s.closed {
			return nil, io.EOF
		}
		s.more.Await(&s.mu, time.Time{})
	}
	return s.all[i], nil
}

// set adds a stripe; it says whether it was to come.
func (s *stripes) set(i int, ch ssh.Channel) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.all[i] != nil {
		return false
	}
	s.all[i] = ch
	s.more.Open()
	return true
}

// close closes all but the flow's own channel.
func (s *stripes) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.more.Open()
	for _, ch := range s.all[1:] {
		if ch != nil {
			_ = ch.Close() // fails when the other end was first
		}
	}
}

// newBond makes a flow of a channel; number is what both ends call it. end must be called.
func newBond(t *tunnel, ch ssh.Channel, number uint32) *bond {
	b := &bond{Channel: ch, t: t, number: number}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bonds[number] = b
	return b
}

// end forgets the flow and its stripes, when its own channel is closed.
func (b *bond) end() {
	b.t.mu.Lock()
	if b.t.bonds[b.number] == b {
		delete(b.t.bonds, b.number)
	}
	b.t.mu.Unlock()
	if in := b.in.Load(); in != nil {
		// What has come is still read: the other end closes its stripes itself, or the tunnel is dead.
		in.mu.Lock()
		in.closed = true
		in.more.Open()
		in.mu.Unlock()
	}
}

// Read reads the stream, never beyond a chunk.
func (b *bond) Read(p []byte) (int, error) {
	ch := b.Channel
	if in := b.in.Load(); in != nil && b.read >= in.start {
		var err error
		if ch, err = in.at(b.read); err != nil {
			return 0, err
		}
	}
	left := stripeChunk - int(b.read%stripeChunk)
	n, err := ch.Read(p[:min(len(p), left)])
	b.read += uint64(n)
	return n, err
}

// Write writes p to the stream.
func (b *bond) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		ch, left, err := b.next()
		if err != nil {
			return total, err
		}
		n, err := ch.Write(p[:min(len(p), left)])
		b.written += uint64(n)
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// next returns the channel for the next byte, and for how many bytes it is that.
func (b *bond) next() (ch ssh.Channel, left int, err error) {
	if !b.decided && b.written >= bondAfter {
		b.decide()
	}
	out := b.out.Load()
	switch {
	case out == nil:
		return b.Channel, stripeChunk, nil
	case b.written < out.start:
		return b.Channel, int(min(out.start-b.written, stripeChunk)), nil
	case b.opening != nil:
		err := <-b.opening
		b.opening = nil
		if errors.Is(err, errNoStripes) {
			b.out.Store(nil)
			return b.Channel, stripeChunk, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
	ch, err = out.at(b.written)
	return ch, stripeChunk - int(b.written%stripeChunk), err
}

// decide begins to open stripes, if they are worth it.
func (b *bond) decide() {
	rtt := time.Duration(b.t.rtt.Load())
	b.decided = rtt > 0
	if rtt < bondRTT {
		return
	}
	out := &stripes{start: b.written/stripeChunk*stripeChunk + bondAhead, all: make([]ssh.Channel, stripeCount)}
	out.all[0] = b.Channel
	opening := make(chan error, 1)
	if b.t.tasks.start(func() { opening <- b.openStripes(out) }) {
		b.out.Store(out)
		b.opening = opening
	}
}

// errNoStripes is the answer where a flow stays on one channel.
var errNoStripes = errors.New("no stripes")

// openStripes opens the channels for writing.
func (b *bond) openStripes(out *stripes) error {
	// The first one alone: if the other end takes that, it takes the others.
	if b.openStripe(out, 1) != nil {
		return errNoStripes
	}
	var wg sync.WaitGroup
	errs := make([]error, stripeCount)
	for i := 2; i < stripeCount; i++ {
		wg.Go(func() { errs[i] = b.openStripe(out, i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (b *bond) openStripe(out *stripes, i int) error {
	ch, reqs, err := b.t.conn.OpenChannel(channelStripe, ssh.Marshal(openStripe{
		Flow: b.number, Index: uint32(i), Count: stripeCount, Start: out.start,
	}))
	if err != nil {
		return err
	}
	if !b.t.tasks.start(func() { ssh.DiscardRequests(reqs) }) || !out.set(i, ch) {
		_ = ch.Close() // the flow has ended meanwhile
		return io.EOF
	}
	return nil
}

// CloseWrite ends the stream that is written.
func (b *bond) CloseWrite() error {
	if out := b.out.Load(); out != nil && b.opening == nil {
		for _, ch := range out.all[1:] {
			_ = ch.CloseWrite() // fails only when the flow has ended
		}
	}
	return b.Channel.CloseWrite()
}

// Close closes all channels of the flow.
func (b *bond) Close() error {
	for _, side := range []*stripes{b.in.Load(), b.out.Load()} {
		if side != nil {
			side.close()
		}
	}
	return b.Channel.Close()
}

// takeStripe is the other end of openStripe.
func (t *tunnel) takeStripe(nc ssh.NewChannel) {
	var p openStripe
	err := ssh.Unmarshal(nc.ExtraData(), &p)
	if err == nil && (!t.stripes || p.Count > stripesMost || p.Index < 1 || p.Index >= p.Count || p.Start%stripeChunk != 0) {
		err = errNoStripes
	}
	var b *bond
	if err == nil {
		t.mu.Lock()
		if b = t.bonds[p.Flow]; b == nil {
			err = fmt.Errorf("no flow %d", p.Flow)
		}
		t.mu.Unlock()
	}
	if err != nil {
		refuse(nc, err)
		return
	}
	fresh := &stripes{start: p.Start, all: make([]ssh.Channel, p.Count)}
	fresh.all[0] = b.Channel
	b.in.CompareAndSwap(nil, fresh) // before the other end knows that it may send
	in := b.in.Load()
	if in.start != p.Start || len(in.all) != int(p.Count) {
		refuse(nc, errNoStripes)
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	if !in.set(int(p.Index), ch) {
		_ = ch.Close() // the flow has ended meanwhile, or the stripe is there
	}
	ssh.DiscardRequests(reqs)
}

// measure finds out how far the other end is.
func (t *tunnel) measure() {
	least := time.Duration(1<<63 - 1)
	for range 3 {
		start := time.Now()
		if _, _, err := t.conn.SendRequest(requestRTT, true, nil); err != nil {
			return // the tunnel is gone
		}
		least = min(least, time.Since(start))
	}
	t.rtt.Store(int64(least))
}
