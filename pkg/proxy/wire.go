// Package proxy joins a process outside the cluster to a pod: the network, names, files and environment of the pod
// to the one side, the pod's traffic to the other. It holds both ends: Client, and Serve, which the agent in the pod
// runs. It knows no Kubernetes: the transport is whatever net.Conn the caller dials.
//
// The two ends speak SSH (golang.org/x/crypto/ssh) over a resumable stream (pkg/proxy/resume). Each end has a key
// that the other one knows beforehand. This is all that both must agree on; payloads are SSH structures of the types
// in this file:
//
//	channel (opened by)           payload       carries
//	direct-tcpip (client)         openTCP       a TCP connection from the pod (RFC 4254, section 7.2)
//	udp@telepresence.io (c)       openAddr      a connected UDP socket in the pod: datagrams
//	dns@telepresence.io (c)       the query     the answer of one of the pod's nameservers, then EOF
//	ping@telepresence.io (c)      openPing      nothing: its confirmation is the echo reply
//	listen@telepresence.io (c)    openListen    a listening TCP socket in the pod, which lives as long as the channel;
//	                                            at first its address, as text and newline
//	accept@telepresence.io (a)    openAccept    a TCP connection that such a socket accepted
//	listen-udp@telepresence.io    openListen    an unconnected UDP socket in the pod: its address, as text and newline,
//	  (c)                                       then datagrams with addresses
//	podinfo@telepresence.io (c)                 PodInfo as JSON, then EOF
//	session (c)                   openSession   subsystem "sftp" (RFC 4254, section 6.5), rooted at "/"
//	stripe@telepresence.io        openStripe    a share of a flow that is under way already: see bond.go
//
//	request                       payload       means
//	reset@telepresence.io         errno name    on a channel: the connection was reset, or ended by this error
//	cancel@telepresence.io (c)    cancelOpen    global: the open with this number is not wanted any more
//	ready@telepresence.io (c)     one byte      global: what the agent answers when asked whether the pod is ready
//	goodbye@telepresence.io (c)                 global: the session is over, the agent ends
//	rtt@telepresence.io                         global: nothing but a reply
//	ending@telepresence.io (a)    text          global: the agent ends, and why
//
// A channel that can't be opened is refused with reason "connect failed" and the symbolic name of the errno
// ("ECONNREFUSED") as message, or text where there is no errno. EOF is a half-close. A datagram is its length
// (2 bytes) and its bytes; the length datagramError announces an errno name instead, a length and text.
package proxy

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"

	"golang.org/x/crypto/ssh"
)

const (
	channelTCP       = "direct-tcpip"
	channelUDP       = "udp@telepresence.io"
	channelDNS       = "dns@telepresence.io"
	channelPing      = "ping@telepresence.io"
	channelListen    = "listen@telepresence.io"
	channelAccept    = "accept@telepresence.io"
	channelListenUDP = "listen-udp@telepresence.io"
	channelPodInfo   = "podinfo@telepresence.io"
	channelSession   = "session"
	channelStripe    = "stripe@telepresence.io"

	requestReset     = "reset@telepresence.io"
	requestCancel    = "cancel@telepresence.io"
	requestReady     = "ready@telepresence.io"
	requestGoodbye   = "goodbye@telepresence.io"
	requestRTT       = "rtt@telepresence.io"
	requestEnding    = "ending@telepresence.io"
	requestSubsystem = "subsystem"
)

// sshUser is the name the client gives; who it is, its key says.
const sshUser = "telepresence"

// openTCP is the payload of direct-tcpip.
type openTCP struct {
	Host       string
	Port       uint32
	OriginHost string
	// OriginPort is the flow's number, for cancelOpen and openStripe (of our client; others have their own idea of it).
	OriginPort uint32
}

// openAddr asks for a socket connected to Addr.
type openAddr struct {
	Addr string // netip.AddrPort
}

// openPing asks for an echo request.
type openPing struct {
	Addr    string // netip.Addr
	Number  uint32 // for cancelOpen
	Payload []byte `ssh:"rest"`
}

// openListen asks for a socket bound to Addr.
type openListen struct {
	Listener uint32 // the client's number for it, in openAccept
	Addr     string // netip.AddrPort
}

// openAccept offers an accepted connection.
type openAccept struct {
	Listener      uint32
	Flow          uint32 // the agent's number for it, with acceptedFlow set
	Local, Remote string // netip.AddrPort
}

// acceptedFlow is set in the numbers of flows that the agent opens: the client numbers the others.
const acceptedFlow = 1 << 31

// openSession begins an SFTP session. Others send nothing here.
type openSession struct {
	Flow uint32
}

// openStripe opens the channel Index of Count, for what the opener sends of a flow from byte Start on.
type openStripe struct {
	Flow         uint32
	Index, Count uint32
	Start        uint64
}

type cancelOpen struct {
	Number uint32
}

type subsystem struct {
	Name string
}

const (
	maxDatagram   = 0xffff - 8 // what fits into a UDP packet over IPv6
	datagramError = 0xffff
)

// appendDatagram appends p in its frame.
func appendDatagram(b, p []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
}

// datagramErrorFrame is an errno name in its frame.
func datagramErrorFrame(name string) []byte {
	return appendDatagram(binary.BigEndian.AppendUint16(nil, datagramError), []byte(name))
}

// readDatagram reads the next datagram, into buf if it fits. What came instead of a datagram is reported as name.
func readDatagram(r io.Reader, buf []byte) (p []byte, name string, err error) {
	size, err := readLength(r)
	if err != nil {
		return nil, "", err
	}
	failed := size == datagramError
	if failed {
		if size, err = readLength(r); err != nil {
			return nil, "", noEOF(err)
		}
	}
	if size > cap(buf) {
		buf = make([]byte, size)
	}
	p = buf[:size]
	if _, err := io.ReadFull(r, p); err != nil {
		return nil, "", noEOF(err)
	}
	if failed {
		return nil, string(p), nil
	}
	return p, "", nil
}

func readLength(r io.Reader) (int, error) {
	var b [2]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	return int(binary.BigEndian.Uint16(b[:])), nil
}

// marshalAddr is an address and a port before a datagram: a length, the address in binary form, the port.
func marshalAddr(a netip.AddrPort) []byte {
	raw, _ := a.MarshalBinary() // never fails
	return append([]byte{byte(len(raw))}, raw...)
}

// cutAddr is the reverse of marshalAddr; it returns what follows.
func cutAddr(b []byte) (netip.AddrPort, []byte, error) {
	var a netip.AddrPort
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return a, nil, io.ErrUnexpectedEOF
	}
	end := 1 + int(b[0])
	if err := a.UnmarshalBinary(b[1:end]); err != nil {
		return a, nil, err
	}
	return a, b[end:], nil
}

// noEOF is err, but the end in the middle of something is not an ordinary end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// refuse answers a channel that can't be opened because of err.
func refuse(nc ssh.NewChannel, err error) {
	_ = nc.Reject(ssh.ConnectionFailed, errnoName(err)) // fails only when the tunnel is gone
}
