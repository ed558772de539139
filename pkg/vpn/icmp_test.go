package vpn

import (
	"bytes"
	"context"
	"net/netip"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// echoRequest is a whole packet.
func echoRequest(from, to netip.Addr, payload []byte) []byte {
	src, dst := tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice())
	if to.Is4() {
		packet := make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize, 100)
		packet = append(packet, payload...)
		ip := header.IPv4(packet)
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(packet)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber), SrcAddr: src, DstAddr: dst,
		})
		ip.SetChecksum(^ip.CalculateChecksum())
		echo := header.ICMPv4(packet[header.IPv4MinimumSize:])
		echo.SetType(header.ICMPv4Echo)
		echo.SetIdent(7)
		echo.SetSequence(8)
		echo.SetChecksum(^checksum.Checksum(echo, 0))
		return packet
	}
	packet := make([]byte, header.IPv6MinimumSize+header.ICMPv6EchoMinimumSize, 100)
	packet = append(packet, payload...)
	header.IPv6(packet).Encode(&header.IPv6Fields{
		PayloadLength:     uint16(len(packet) - header.IPv6MinimumSize),
		TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: dst,
	})
	echo := header.ICMPv6(packet[header.IPv6MinimumSize:])
	echo.SetType(header.ICMPv6EchoRequest)
	echo.SetIdent(7)
	echo.SetSequence(8)
	echo.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: echo, Src: src, Dst: dst}))
	return packet
}

// message is the ICMP message of the next packet from the engine.
func message(t testing.TB, d *memDevice) []byte {
	t.Helper()
	select {
	case packet := <-d.in:
		if header.IPVersion(packet) == header.IPv4Version {
			return header.IPv4(packet).Payload()
		}
		return header.IPv6(packet).Payload()
	case <-patient(t).Done():
		t.Fatal("no packet came")
		return nil
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		from, to netip.Addr
		pod      error
		want     [2]byte // ICMP type and code
	}{
		{"v4", client4, cluster4.Addr(), nil, [2]byte{0, 0}},
		{"v4 host unreachable", client4, cluster4.Addr(), syscall.EHOSTUNREACH, [2]byte{3, 1}},
		{"v4 network unreachable", client4, cluster4.Addr(), syscall.ENETUNREACH, [2]byte{3, 0}},
		{"v4 not allowed", client4, cluster4.Addr(), syscall.EPERM, [2]byte{3, 13}},
		{"v6", client6, cluster6.Addr(), nil, [2]byte{129, 0}},
		{"v6 host unreachable", client6, cluster6.Addr(), syscall.EHOSTUNREACH, [2]byte{1, 3}},
		{"v6 network unreachable", client6, cluster6.Addr(), syscall.ENETUNREACH, [2]byte{1, 0}},
		{"v6 not allowed", client6, cluster6.Addr(), syscall.EPERM, [2]byte{1, 1}},
		{"the DNS server", client4, dnsAddr, syscall.EHOSTUNREACH, [2]byte{0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			payload := []byte("0123456789")
			device := startEngine(t, Config{
				DNSAddr: dnsAddr, DNS: answerWith(0),
				Dialer: pod{ping: func(_ context.Context, addr netip.Addr, got []byte) error {
					if addr != tt.to || !bytes.Equal(got, payload) {
						t.Errorf("the pod pings %s with %q, want %s with %q", addr, got, tt.to, payload)
					}
					return tt.pod
				}},
			})
			if _, err := device.Write(echoRequest(tt.from, tt.to, payload)); err != nil {
				t.Fatal(err)
			}
			got := message(t, device)
			if [2]byte(got[:2]) != tt.want {
				t.Fatalf("type and code %v, want %v", got[:2], tt.want)
			}
			if tt.want[1] == 0 && tt.pod == nil {
				if h := header.ICMPv4(got); h.Ident() != 7 || h.Sequence() != 8 || !bytes.Equal(h.Payload(), payload) {
					t.Errorf("the answer is not to the question: %x", got)
				}
			}
		})
	}
}

// FuzzPackets states that no packet keeps the engine from answering the next.
func FuzzPackets(f *testing.F) {
	ping := echoRequest(client4, dnsAddr, []byte("are you there"))
	f.Add(ping)
	f.Add(echoRequest(client6, cluster6.Addr(), []byte("x")))
	device := startEngine(f, Config{
		Dialer: refusing(syscall.EHOSTUNREACH), DNS: answerWith(1), DNSAddr: dnsAddr,
	})
	for _, seed := range packetsOf(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > device.MTU() {
			return
		}
		_, _ = device.Write(packet)
		_, _ = device.Write(ping)
		for {
			if got := message(t, device); bytes.HasSuffix(got, []byte("are you there")) && got[0] == 0 {
				return
			}
		}
	})
}

// packetsOf records what a client sends that connects, asks and writes.
func packetsOf(f *testing.F) [][]byte {
	f.Helper()
	near, wire := newWire()
	c := startClient(f, near)
	for _, to := range []netip.AddrPort{cluster4, cluster6, dnsServer} {
		_, _ = c.dialUDP(f, to).Write([]byte("datagram"))
		ep, err := c.NewEndpoint(tcp.ProtocolNumber, networkOf(to.Addr()), new(waiter.Queue))
		if err != nil {
			f.Fatal(err)
		}
		_ = ep.Connect(full(to)) // sends the SYN; no answer comes
		defer ep.Close()
	}
	var packets [][]byte
	for len(wire.in) > 0 {
		packets = append(packets, <-wire.in)
	}
	return packets
}
