package vpn

import (
	"errors"
	"os"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// link is a device as the netstack's link endpoint.
type link struct {
	device tun.Device
	mtu    uint32
	bufs   sync.Pool // of *[]byte, one packet each

	mu         sync.RWMutex // guards dispatcher
	dispatcher stack.NetworkDispatcher
}

func newLink(d tun.Device) *link {
	mtu := d.MTU()
	l := &link{device: d, mtu: uint32(mtu)} //nolint:gosec // an MTU is at most 65535
	l.bufs.New = func() any {
		b := make([]byte, mtu)
		return &b
	}
	return l
}

// readLoop gives packets to the netstack until the device is closed, when it
// returns nil, or fails.
func (l *link) readLoop() error {
	buf := make([]byte, l.mtu)
	for {
		n, err := l.device.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		l.deliver(buf[:n])
	}
}

// deliver gives one packet to the netstack, which copies it.
func (l *link) deliver(packet []byte) {
	var protocol tcpip.NetworkProtocolNumber
	switch header.IPVersion(packet) {
	case header.IPv4Version:
		protocol = header.IPv4ProtocolNumber
	case header.IPv6Version:
		protocol = header.IPv6ProtocolNumber
	default:
		return
	}
	l.mu.RLock()
	dispatcher := l.dispatcher
	l.mu.RUnlock()
	if dispatcher == nil {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	defer pkt.DecRef()
	dispatcher.DeliverNetworkPacket(protocol, pkt)
}

// WritePackets implements stack.LinkWriter.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		if err := l.write(pkt); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

func (l *link) write(pkt *stack.PacketBuffer) tcpip.Error {
	buf := l.bufs.Get().(*[]byte)
	defer l.bufs.Put(buf)
	n := 0
	for _, s := range pkt.AsSlices() {
		if n+len(s) > len(*buf) {
			return &tcpip.ErrMessageTooLong{}
		}
		n += copy((*buf)[n:], s)
	}
	if _, err := l.device.Write((*buf)[:n]); err != nil {
		if errors.Is(err, os.ErrClosed) {
			return &tcpip.ErrClosedForSend{}
		}
		return &tcpip.ErrNoBufferSpace{} // as a full queue: what matters is sent again
	}
	return nil
}

// Attach implements stack.LinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

// IsAttached implements stack.LinkEndpoint.
func (l *link) IsAttached() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dispatcher != nil
}

// Capabilities implements stack.LinkEndpoint. Packets come from the kernel of
// this machine, through no wire: their checksums need no check.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// MTU implements stack.LinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu }

// SetMTU implements stack.LinkEndpoint; the device's MTU stays as it is.
func (l *link) SetMTU(uint32) {}

// MaxHeaderLength implements stack.LinkEndpoint.
func (l *link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.LinkEndpoint.
func (l *link) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.LinkEndpoint.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType implements stack.LinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.LinkEndpoint.
func (l *link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.LinkEndpoint.
func (l *link) ParseHeader(*stack.PacketBuffer) bool { return true }

// Wait implements stack.LinkEndpoint; the engine waits for its reader itself.
func (l *link) Wait() {}

// Close implements stack.LinkEndpoint; the engine closes its device itself.
func (l *link) Close() {}

// SetOnCloseAction implements stack.LinkEndpoint.
func (l *link) SetOnCloseAction(func()) {}
