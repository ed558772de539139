package dockerrun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/yamux"
)

// HelperArg is the argument with which this program is the helper.
const HelperArg = "docker-helper"

// What client and helper say to each other: over the helper's standard input and
// output runs yamux (https://github.com/hashicorp/yamux/blob/master/spec.md), whose
// streams each begin with a kind and a port, two bytes in network order. The end
// that is asked answers with one byte.
//
//	kind       opened by   then
//	packets    client      packets in both directions, each behind its length in four bytes
//	dial       client      the bytes of a connection to localhost:port in the namespace
//	look       client      nothing: the answer tells whether something listens on the port
//	listen     client      nothing: the port is listened on while the stream is open
//	accepted   helper      the bytes of a connection that came to such a port; no answer
//	files      client      a tar archive of what changes in the volume whose number the port is, and one more
//	                       answer when that has happened
const (
	kindPackets = iota + 1
	kindDial
	kindLook
	kindListen
	kindAccepted
	kindFiles
)

// The answers.
const (
	answerYes     = iota + 1
	answerNo      // refused; nobody listens
	answerTrouble // anything else
)

// headLength is how long the beginning of a stream is.
const headLength = 3

// maxPacket bounds a packet.
const maxPacket = 1<<16 - 1

func writeHead(w io.Writer, kind byte, port uint16) error {
	head := [headLength]byte{kind}
	binary.BigEndian.PutUint16(head[1:], port)
	_, err := w.Write(head[:])
	return err
}

func readHead(r io.Reader) (kind byte, port uint16, err error) {
	var head [headLength]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, err
	}
	if head[0] < kindPackets || head[0] > kindFiles {
		return 0, 0, fmt.Errorf("a stream of kind %d", head[0])
	}
	return head[0], binary.BigEndian.Uint16(head[1:]), nil
}

// writePacket writes one packet, in one write.
func writePacket(w io.Writer, buf, packet []byte) error {
	binary.BigEndian.PutUint32(buf, uint32(len(packet)))
	n := copy(buf[4:], packet)
	_, err := w.Write(buf[:4+n])
	return err
}

var errPacket = errors.New("a packet of impossible length")

// readPacket reads one packet into p, which holds maxPacket bytes.
func readPacket(r io.Reader, p []byte) (int, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint32(length[:]))
	if n == 0 || n > len(p) {
		return 0, errPacket
	}
	return io.ReadFull(r, p[:n])
}

// muxConfig is yamux's, the same at both ends. Its keepalive notices an engine
// that has gone silent.
func muxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.KeepAliveInterval = 10 * time.Second
	c.ConnectionWriteTimeout = 30 * time.Second
	c.MaxStreamWindowSize = 4 << 20
	c.LogOutput = io.Discard
	return c
}
