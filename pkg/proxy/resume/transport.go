package resume

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errSilent is the end of a transport on which nothing comes.
var errSilent = errors.New("the other side has fallen silent")

// transport is one connection under a Conn.
type transport struct {
	nc    net.Conn
	heard atomic.Uint64 // bytes received
	gone  chan struct{} // closed by the first end

	once sync.Once
	why  error // set before gone is closed
}

func newTransport(nc net.Conn) *transport { return &transport{nc: nc, gone: make(chan struct{})} }

// end closes the transport; the first reason given holds.
func (t *transport) end(why error) {
	t.once.Do(func() {
		t.why = why
		close(t.gone)
		_ = t.nc.Close() // its goroutines report what counts
	})
}

// Read counts what is received.
func (t *transport) Read(p []byte) (int, error) {
	n, err := t.nc.Read(p)
	t.heard.Add(uint64(n))
	return n, err
}

// serve carries the stream over t until it ends, and returns the reason.
func (c *Conn) serve(t *transport) error {
	var wg sync.WaitGroup
	wg.Go(func() { t.end(c.receive(t)) })
	wg.Go(func() { c.transmit(t) })
	wg.Go(func() { c.watch(t) })
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setCurrentLocked(nil)
	return t.why
}

// receive handles what comes until the transport ends or the other side closes the stream.
func (c *Conn) receive(t *transport) error {
	br := bufio.NewReaderSize(t, 32<<10)
	for {
		h, err := readHeader(br)
		if err != nil {
			return err
		}
		switch h.kind {
		case frameData:
			err = c.receiveData(br, h.size)
		case frameAck:
			err = c.receiveAck(h.ack)
		case frameFin:
			c.mu.Lock()
			c.finRead = true
			c.wakeLocked()
			c.mu.Unlock()
			return io.EOF
		}
		if err != nil {
			return err
		}
	}
}

// receiveData reads size bytes of the stream into recv.
func (c *Conn) receiveData(br io.Reader, size int) error {
	c.mu.Lock()
	if c.recv.len()+size > c.cfg.Buffer {
		c.mu.Unlock()
		return fmt.Errorf("%w: more data than agreed", errFrame)
	}
	if c.closing {
		c.recv.start = c.recv.end // nobody will read it
	}
	c.recv.grow(size)
	c.mu.Unlock()
	for size > 0 {
		c.mu.Lock()
		room := c.recv.room() // only this goroutine adds to recv, so the room stays ours without the lock
		c.mu.Unlock()
		n, err := br.Read(room[:min(len(room), size)])
		c.mu.Lock()
		c.recv.end += uint64(n)
		if n > 0 {
			c.readable.Open()
		}
		c.mu.Unlock()
		if err != nil {
			return noEOF(err)
		}
		size -= n
	}
	return nil
}

func (c *Conn) receiveAck(ack uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ack > c.sent {
		return fmt.Errorf("%w: acknowledgement of what was not sent", errFrame)
	}
	if ack > c.send.start {
		c.send.start = ack
		c.writable.Open()
		c.sendable.Open()
	}
	c.recv.shrink() // here and not in watch: receiveData relies on nobody else touching recv.buf
	return nil
}

// transmit writes what there is to send until the transport ends.
func (c *Conn) transmit(t *transport) {
	tick := time.NewTicker(c.cfg.Keepalive)
	defer tick.Stop()
	buf := make([]byte, 0, ackSize+dataHeader+maxData)
	for idle := false; ; {
		c.mu.Lock()
		out := c.fillLocked(buf[:0], idle)
		more := c.sendable.Changed()
		c.mu.Unlock()
		idle = false
		if len(out) > 0 {
			if _, err := t.nc.Write(out); err != nil {
				t.end(err)
				return
			}
			select {
			case <-t.gone:
				return
			default:
				continue
			}
		}
		select {
		case <-more:
		case <-tick.C:
			idle = true
		case <-t.gone:
			return
		}
	}
}

// fillLocked appends the next frames to b: what is to be sent now, or if idle, at least a sign of life.
func (c *Conn) fillLocked(b []byte, idle bool) []byte {
	if c.ackDue || idle {
		c.ackDue = false
		c.acked = c.recv.start
		b = appendAck(b, c.acked)
	}
	room := int(c.send.start) + c.limit - int(c.sent) // what the other side can hold
	if data := c.send.from(c.sent); len(data) > 0 && room > 0 {
		data = data[:min(len(data), maxData, room)]
		b = append(appendData(b, len(data)), data...)
		c.sent += uint64(len(data))
		c.writable.Open()
	}
	if c.closing && c.sent == c.send.end && !c.finSent {
		c.finSent = true
		b = append(b, frameFin)
	}
	return b
}

// watch ends the transport when nothing has come for too long, and gives unused memory back.
func (c *Conn) watch(t *transport) {
	tick := time.NewTicker(c.cfg.Keepalive)
	defer tick.Stop()
	silent, heard := 0, t.heard.Load()
	for {
		select {
		case <-t.gone:
			return
		case <-tick.C:
		}
		if now := t.heard.Load(); now != heard {
			silent, heard = 0, now
		} else if silent++; silent >= deadAfter {
			t.end(fmt.Errorf("%w for %v", errSilent, deadAfter*c.cfg.Keepalive))
			return
		}
		c.mu.Lock()
		c.send.shrink()
		c.mu.Unlock()
	}
}
