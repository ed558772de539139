package resume

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

func FuzzReadHeader(f *testing.F) {
	f.Add(append(appendData(nil, 5), "hello"...))
	f.Add(appendAck(nil, 1<<40))
	f.Add([]byte{frameFin})
	f.Add([]byte{frameData, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := bytes.NewReader(wire)
		h, err := readHeader(r)
		if err != nil {
			if errors.Is(err, io.EOF) && len(wire) > 0 {
				t.Errorf("%x: the end in the middle is no ordinary end", wire)
			}
			return
		}
		var again []byte
		switch h.kind {
		case frameData:
			if h.size < 1 || h.size > maxData {
				t.Errorf("%x announces %d bytes", wire, h.size)
			}
			again = appendData(nil, h.size)
		case frameAck:
			again = appendAck(nil, h.ack)
		case frameFin:
			again = []byte{frameFin}
		}
		if used := wire[:len(wire)-r.Len()]; !bytes.Equal(used, again) {
			t.Errorf("%x was read as %+v, which is written as %x", used, h, again)
		}
	})
}

func FuzzParsePosition(f *testing.F) {
	f.Add(position{resumed: true, received: 1 << 40, buffer: minBuffer}.marshal())
	f.Fuzz(func(t *testing.T, wire []byte) {
		p, err := parsePosition(wire)
		if err == nil && !bytes.Equal(p.marshal(), wire) {
			t.Errorf("%x is %+v, which is written as %x", wire, p, p.marshal())
		}
	})
}

// FuzzShakeAsListener lets strangers speak to a listener: none may get in, and none may learn the token's proof
// of something a dialer would believe.
func FuzzShakeAsListener(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	f.Add(append([]byte(magic), make([]byte, nonceSize+idSize+positionSize+32)...))
	f.Fuzz(func(t *testing.T, said []byte) {
		stranger, nc := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, stranger) })
		wg.Go(func() {
			_, _ = stranger.Write(said)
			_ = stranger.Close()
		})
		if _, _, err := shakeAsListener(nc, []byte("the token")); err == nil {
			t.Errorf("%x got in", said)
		}
		_ = nc.Close()
		wg.Wait()
	})
}

// TestHandshake lets two sides with equal and with different tokens meet.
func TestHandshake(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		dialer, listen string
		status         byte
		want           error
	}{
		{"same token", "one", "one", statusOK, nil},
		{"other token", "one", "two", statusOK, ErrDenied},
		{"unknown", "one", "one", statusUnknown, ErrUnknown},
		{"busy", "one", "one", statusBusy, ErrBusy},
		{"nonsense", "one", "one", 77, errFrame},
	} {
		a, b := net.Pipe()
		own := position{received: 5, buffer: minBuffer}
		var wg sync.WaitGroup
		var seen position
		wg.Go(func() {
			h, p, err := shakeAsListener(b, []byte(tt.listen))
			seen = p
			if err == nil {
				err = h.answer(tt.status, position{received: 7, buffer: 2 * minBuffer})
			}
			if (err != nil) != (tt.dialer != tt.listen) {
				t.Errorf("%s: the listener: %v", tt.name, err)
			}
		})
		got, err := shakeAsDialer(a, []byte(tt.dialer), sessionID{1}, own)
		wg.Wait()
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil && (got.received != 7 || got.buffer != 2*minBuffer || seen != own) {
			t.Errorf("%s: positions %+v and %+v", tt.name, got, seen)
		}
		_ = a.Close()
		_ = b.Close()
	}
}

// TestVersions lets a dialer and a listener of other versions meet: each learns of the other's.
func TestVersions(t *testing.T) {
	t.Parallel()
	other := []byte(protocol + "3\n")
	stranger, nc := net.Pipe()
	var wg sync.WaitGroup
	greeting := make([]byte, len(magic)+nonceSize)
	wg.Go(func() {
		_, _ = stranger.Write(append(other, make([]byte, nonceSize+idSize)...)) // a reader that has ended says so itself
		_, _ = io.ReadFull(stranger, greeting)
	})
	_, _, err := shakeAsListener(nc, []byte("the token"))
	_ = nc.Close()
	wg.Wait()
	var wrong *VersionError
	if !errors.As(err, &wrong) || wrong.Other != '3' || !wrong.Newer() || errors.Is(err, errFrame) {
		t.Errorf("the listener: %v", err)
	}
	if !bytes.HasPrefix(greeting, []byte(magic)) {
		t.Errorf("the listener greets with %q", greeting)
	}
}

// TestRing holds a ring against a plain slice.
func TestRing(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	var r ring
	var all []byte // the whole stream
	for range 20_000 {
		switch rnd.IntN(4) {
		case 0, 1:
			p := make([]byte, rnd.IntN(5000))
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			if r.len() < 1<<20 {
				r.grow(len(p))
			}
			n := r.append(p)
			all = append(all, p[:n]...)
		case 2:
			r.start += uint64(rnd.IntN(r.len() + 1))
		case 3:
			r.shrink()
		}
		if r.end != uint64(len(all)) {
			t.Fatalf("the ring ends at %d, want %d", r.end, len(all))
		}
		off := r.start + uint64(rnd.IntN(r.len()+1))
		p := make([]byte, rnd.IntN(5000))
		n := r.read(off, p)
		if want := all[off:min(int(off)+len(p), len(all))]; !bytes.Equal(p[:n], want) {
			t.Fatalf("read %d bytes from %d, want %d others", n, off, len(want))
		}
	}
}
