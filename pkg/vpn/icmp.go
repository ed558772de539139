package vpn

import (
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
)

const (
	maxPings = 256 // under way at once; those beyond are lost

	// quoteBytes of a packet's payload are kept to quote in an ICMP error.
	// No system asks for more than the ports and the sequence number.
	quoteBytes = 64
)

// quote copies as much of a packet as an ICMP error about it needs.
func quote(pkt *stack.PacketBuffer) *stack.PacketBuffer {
	network := pkt.NetworkHeader().Slice()
	transport := pkt.TransportHeader().Slice()
	payload := pkt.Data().AsRange().ToSlice()
	payload = payload[:min(len(payload), quoteBytes)]

	head := make([]byte, 0, len(network)+len(transport)+len(payload))
	head = append(append(append(head, network...), transport...), payload...)
	q := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(head)})
	q.NetworkHeader().Consume(len(network))
	q.TransportHeader().Consume(len(transport))
	q.NetworkProtocolNumber = pkt.NetworkProtocolNumber
	q.TransportProtocolNumber = pkt.TransportProtocolNumber
	q.NICID = pkt.NICID
	return q
}

// reject answers the quoted packet with the ICMP error that says v. For TCP,
// refused is not said this way.
func (e *Engine) reject(packet *stack.PacketBuffer, v verdict) {
	tcp := packet.TransportProtocolNumber == header.TCPProtocolNumber
	if v == silence || v == refused && tcp {
		return
	}
	var err tcpip.Error
	switch p := e.stack.NetworkProtocolInstance(packet.NetworkProtocolNumber).(type) {
	case stack.RejectIPv4WithHandler:
		err = p.SendRejectionError(packet, map[verdict]stack.RejectIPv4WithICMPType{
			refused:         stack.RejectIPv4WithICMPPortUnreachable,
			hostUnreachable: stack.RejectIPv4WithICMPHostUnreachable,
			netUnreachable:  stack.RejectIPv4WithICMPNetUnreachable,
			prohibited:      stack.RejectIPv4WithICMPAdminProhibited,
		}[v], true)
	case stack.RejectIPv6WithHandler:
		err = p.SendRejectionError(packet, map[verdict]stack.RejectIPv6WithICMPType{
			refused:         stack.RejectIPv6WithICMPPortUnreachable,
			hostUnreachable: stack.RejectIPv6WithICMPAddrUnreachable,
			netUnreachable:  stack.RejectIPv6WithICMPNoRoute,
			prohibited:      stack.RejectIPv6WithICMPAdminProhibited,
		}[v], true)
	}
	if err != nil {
		e.log.Debug("icmp: rejecting a packet", "error", err.String())
	}
}

// handlePing gets the ICMP messages that belong to no socket, and takes the
// echo requests, so that the netstack doesn't answer for the pod.
func (e *Engine) handlePing(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	message := append(append([]byte(nil), pkt.TransportHeader().Slice()...), pkt.Data().AsRange().ToSlice()...)
	if !isEchoRequest(pkt.NetworkProtocolNumber, message) {
		return false
	}
	if id.LocalAddress == e.dnsAddr {
		e.answerPing(id, message)
		return true
	}
	if !reachable(id.LocalAddress) {
		return true
	}
	ctx, ok := e.begin(&e.pings, maxPings)
	if !ok {
		return true
	}
	request := quote(pkt)
	e.flows.Go(func() {
		defer e.end(&e.pings)
		dst := address(id.LocalAddress)
		if err := e.dialer.Ping(ctx, dst, message[header.ICMPv4MinimumSize:]); err != nil {
			e.log.Debug("icmp: ping", "to", dst, "error", err)
			e.reject(request, verdictOf(err))
			return
		}
		e.answerPing(id, message)
	})
	return true
}

// isEchoRequest reports whether message is one, of ICMP or ICMPv6. Their echo
// messages have the same shape: type, code, checksum, identifier, sequence
// number, and then the payload.
func isEchoRequest(network tcpip.NetworkProtocolNumber, message []byte) bool {
	if len(message) < header.ICMPv4MinimumSize {
		return false
	}
	if network == ipv4.ProtocolNumber {
		return header.ICMPv4(message).Type() == header.ICMPv4Echo
	}
	return header.ICMPv6(message).Type() == header.ICMPv6EchoRequest
}

// answerPing sends the echo reply to a request, whose bytes it reuses.
func (e *Engine) answerPing(id stack.TransportEndpointID, message []byte) {
	network, transport := ipv4.ProtocolNumber, icmp.ProtocolNumber4
	if id.LocalAddress.Len() == header.IPv6AddressSize {
		network, transport = ipv6.ProtocolNumber, icmp.ProtocolNumber6
	}
	route, err := e.stack.FindRoute(nic, id.LocalAddress, id.RemoteAddress, network, false)
	if err != nil {
		e.log.Debug("icmp: answering a ping", "error", err.String())
		return
	}
	defer route.Release()

	if network == ipv4.ProtocolNumber {
		h := header.ICMPv4(message)
		h.SetType(header.ICMPv4EchoReply)
		h.SetChecksum(0)
		h.SetChecksum(^checksum.Checksum(h, 0))
	} else {
		h := header.ICMPv6(message)
		h.SetType(header.ICMPv6EchoReply)
		h.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
			Header: h, Src: id.LocalAddress, Dst: id.RemoteAddress,
		}))
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(message),
	})
	defer pkt.DecRef()
	pkt.TransportProtocolNumber = transport
	if err := route.WritePacket(stack.NetworkHeaderParams{
		Protocol: transport, TTL: route.DefaultTTL(),
	}, pkt); err != nil {
		e.log.Debug("icmp: answering a ping", "error", err.String())
	}
}
