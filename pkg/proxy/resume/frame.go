package resume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The frames that follow the handshake on a transport. Each begins with one byte that says which it is.
const (
	// frameData: a length (4 bytes, 1 to maxData), then so many bytes of the stream.
	frameData = 1
	// frameAck: the number of bytes of the stream the sender's user has read (8 bytes). Repeated when there is
	// nothing else to send, so that silence means a dead transport.
	frameAck = 2
	// frameFin: the sender has closed the stream, and has sent all of it.
	frameFin = 3
)

const (
	maxData    = 64 << 10
	dataHeader = 1 + 4
	ackSize    = 1 + 8
)

// errFrame is an answer that is not of this protocol.
var errFrame = errors.New("malformed frame")

// header is what stands before a frame's data.
type header struct {
	kind byte
	size int    // frameData: the bytes of the stream that follow
	ack  uint64 // frameAck
}

// appendData appends the header of a data frame for size bytes.
func appendData(b []byte, size int) []byte {
	return binary.BigEndian.AppendUint32(append(b, frameData), uint32(size))
}

func appendAck(b []byte, ack uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, frameAck), ack)
}

// readHeader reads the next frame up to the data, which the caller reads.
func readHeader(r io.Reader) (header, error) {
	var buf [8]byte
	if _, err := io.ReadFull(r, buf[:1]); err != nil {
		return header{}, err
	}
	h := header{kind: buf[0]}
	switch h.kind {
	case frameData:
		if _, err := io.ReadFull(r, buf[:4]); err != nil {
			return header{}, noEOF(err)
		}
		size := binary.BigEndian.Uint32(buf[:4])
		if size == 0 || size > maxData {
			return header{}, fmt.Errorf("%w: %d bytes of data", errFrame, size)
		}
		h.size = int(size)
	case frameAck:
		if _, err := io.ReadFull(r, buf[:8]); err != nil {
			return header{}, noEOF(err)
		}
		h.ack = binary.BigEndian.Uint64(buf[:8])
	case frameFin:
	default:
		return header{}, fmt.Errorf("%w: type %d", errFrame, h.kind)
	}
	return h, nil
}

// noEOF is err, but the end in the middle of something is not an ordinary end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
