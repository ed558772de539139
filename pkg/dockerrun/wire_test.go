package dockerrun

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPackets(t *testing.T) {
	t.Parallel()
	var wire bytes.Buffer
	buf := make([]byte, 4+maxPacket)
	sent := [][]byte{{1}, bytes.Repeat([]byte{2}, 1500), bytes.Repeat([]byte{3}, maxPacket)}
	for _, p := range sent {
		if err := writePacket(&wire, buf, p); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, maxPacket)
	for _, p := range sent {
		n, err := readPacket(&wire, got)
		if err != nil || !bytes.Equal(got[:n], p) {
			t.Errorf("got %d bytes, %v; want %d", n, err, len(p))
		}
	}
	if _, err := readPacket(&wire, got); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// Whatever bytes come, a packet fits and a head is one of ours.
func FuzzWire(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 9})
	f.Add([]byte{255, 255, 255, 255})
	f.Add([]byte{kindDial, 0, 80})
	f.Fuzz(func(t *testing.T, text []byte) {
		p := make([]byte, 100)
		if n, err := readPacket(bytes.NewReader(text), p); err == nil && (n < 1 || n > len(p)) {
			t.Errorf("%q is a packet of %d bytes", text, n)
		}
		if kind, _, err := readHead(bytes.NewReader(text)); err == nil && (kind < kindPackets || kind > kindFiles) {
			t.Errorf("%q is of kind %d", text, kind)
		}
	})
}
