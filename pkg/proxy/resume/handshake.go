package resume

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// The handshake on a new transport. Both sides show that they hold the token without sending it, and where in the
// stream they are:
//
//	dialer               listener
//	greeting, id    →
//	                ←    greeting
//	position, proof →
//	                ←    status, position, proof
//
// A greeting is the magic and a nonce. A proof is an HMAC-SHA256, keyed with the token, over the side's name, both
// nonces, the id and what the side says.
//
// The magic has the version in it, of all that the two sides say to each other, above this stream too. It is raised
// whenever one side would take what the other says for something else. A listener greets a dialer of another version
// too, so that each side learns which of them is the older; that works as long as the first line above stays as it is.
const (
	protocol  = "tp-resume/"
	version   = '1' // the next is '2'
	magic     = protocol + string(version) + "\n"
	nonceSize = 16
	idSize    = 16

	handshakeTimeout = 15 * time.Second
)

// What a listener answers.
const (
	statusOK      = 0
	statusUnknown = 1 // there is no such session (any more)
	statusBusy    = 2 // another session is attached
	statusDenied  = 3 // the dialer's proof is wrong; then so is the listener's, to the dialer
)

// Errors that end a connection at once: dialling again would not help.
var (
	// ErrUnknown means that the other side has no such session, or no longer: it was restarted or has given up.
	ErrUnknown = errors.New("the other side does not know this session any more")
	// ErrBusy means that the other side serves another session now.
	ErrBusy = errors.New("another session is connected")
	// ErrDenied means that the two sides do not hold the same token.
	ErrDenied = errors.New("the other side holds another token")
)

// VersionError means that the other side speaks another version of the protocol: dialling again would not help.
type VersionError struct{ Own, Other byte }

// Error names both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("the other side speaks version %c of the protocol, this side version %c", e.Other, e.Own)
}

// Newer tells whether the other side is the newer one.
func (e *VersionError) Newer() bool { return e.Other > e.Own }

type sessionID [idSize]byte

// position is where a side is in the stream, and what it can hold.
type position struct {
	resumed  bool   // the session had a transport before
	received uint64 // bytes received of the other side's stream
	buffer   uint32 // bytes it keeps for the other side to read, and for itself to send again
}

const positionSize = 1 + 8 + 4

func (p position) marshal() []byte {
	b := make([]byte, 1, positionSize)
	if p.resumed {
		b[0] = 1
	}
	b = binary.BigEndian.AppendUint64(b, p.received)
	return binary.BigEndian.AppendUint32(b, p.buffer)
}

func parsePosition(b []byte) (position, error) {
	if len(b) != positionSize || b[0] > 1 {
		return position{}, fmt.Errorf("%w: position", errFrame)
	}
	p := position{resumed: b[0] == 1, received: binary.BigEndian.Uint64(b[1:]), buffer: binary.BigEndian.Uint32(b[9:])}
	if p.buffer < minBuffer {
		return position{}, fmt.Errorf("%w: buffer of %d bytes", errFrame, p.buffer)
	}
	return p, nil
}

// hello is a handshake under way on a transport.
type hello struct {
	nc     net.Conn
	token  []byte
	id     sessionID
	dialer [nonceSize]byte
	listen [nonceSize]byte
}

// proof is the HMAC over what side says.
func (h *hello) proof(side string, says []byte) []byte {
	mac := hmac.New(sha256.New, h.token)
	for _, part := range [][]byte{[]byte(side), h.dialer[:], h.listen[:], h.id[:], says} {
		mac.Write(part) // never fails
	}
	return mac.Sum(nil)
}

// greet sends the magic and nonce, and extra.
func (h *hello) greet(nonce *[nonceSize]byte, extra []byte) error {
	_, err := rand.Read(nonce[:])
	if err != nil {
		return err
	}
	msg := append([]byte(magic), nonce[:]...)
	_, err = h.nc.Write(append(msg, extra...))
	return err
}

// greeted reads the other side's magic and nonce, and extra.
func (h *hello) greeted(nonce *[nonceSize]byte, extra []byte) error {
	buf := make([]byte, len(magic)+nonceSize+len(extra))
	if _, err := io.ReadFull(h.nc, buf); err != nil {
		return noEOF(err)
	}
	if greeting := string(buf[:len(magic)]); greeting != magic {
		if strings.HasPrefix(greeting, protocol) && strings.HasSuffix(greeting, "\n") {
			return &VersionError{Own: version, Other: greeting[len(protocol)]}
		}
		return fmt.Errorf("%w: greeting", errFrame)
	}
	copy(nonce[:], buf[len(magic):])
	copy(extra, buf[len(magic)+nonceSize:])
	return nil
}

// shakeAsDialer is the dialer's whole handshake; it returns the listener's position.
func shakeAsDialer(nc net.Conn, token []byte, id sessionID, own position) (position, error) {
	h := &hello{nc: nc, token: token, id: id}
	if err := h.greet(&h.dialer, id[:]); err != nil {
		return position{}, err
	}
	if err := h.greeted(&h.listen, nil); err != nil {
		return position{}, err
	}
	says := own.marshal()
	if _, err := nc.Write(append(says, h.proof("dialer", says)...)); err != nil {
		return position{}, err
	}
	buf := make([]byte, 1+positionSize+sha256.Size)
	if _, err := io.ReadFull(nc, buf); err != nil {
		return position{}, noEOF(err)
	}
	says = buf[:1+positionSize]
	if !hmac.Equal(h.proof("listener", says), buf[len(says):]) {
		return position{}, ErrDenied
	}
	switch says[0] {
	case statusOK:
		return parsePosition(says[1:])
	case statusUnknown:
		return position{}, ErrUnknown
	case statusBusy:
		return position{}, ErrBusy
	}
	return position{}, fmt.Errorf("%w: status %d", errFrame, says[0])
}

// shakeAsListener is the listener's handshake up to the answer: h.id and the dialer's position are known and proved.
func shakeAsListener(nc net.Conn, token []byte) (*hello, position, error) {
	h := &hello{nc: nc, token: token}
	if err := h.greeted(&h.dialer, h.id[:]); err != nil {
		var other *VersionError
		if errors.As(err, &other) {
			err = errors.Join(err, h.greet(&h.listen, nil))
		}
		return nil, position{}, err
	}
	if err := h.greet(&h.listen, nil); err != nil {
		return nil, position{}, err
	}
	buf := make([]byte, positionSize+sha256.Size)
	if _, err := io.ReadFull(nc, buf); err != nil {
		return nil, position{}, noEOF(err)
	}
	says := buf[:positionSize]
	if !hmac.Equal(h.proof("dialer", says), buf[len(says):]) {
		_ = h.answer(statusDenied, position{buffer: minBuffer})
		return nil, position{}, ErrDenied
	}
	p, err := parsePosition(says)
	return h, p, err
}

// answer is the listener's last word.
func (h *hello) answer(status byte, own position) error {
	says := append([]byte{status}, own.marshal()...)
	_, err := h.nc.Write(append(says, h.proof("listener", says)...))
	return err
}
