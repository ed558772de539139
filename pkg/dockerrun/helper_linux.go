package dockerrun

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/hashicorp/yamux"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/listening"
	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// deviceMTU is the device's: as large as a packet of IPv4 may be, less what
// nobody needs.
const deviceMTU = tun.DefaultMTU

// stdio is the helper's standard input and output as one stream.
type stdio struct {
	io.Reader
	io.Writer
}

func (stdio) Close() error { return nil }

// Helper is the program inside the helper container: it ends when its standard
// input does, and returns the exit code.
func Helper(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) int {
	mux, err := yamux.Server(stdio{stdin, stdout}, muxConfig())
	if err != nil {
		fmt.Fprintln(stderr, "helper:", err)
		return 1
	}
	h := &helper{mux: mux, stderr: stderr}
	for {
		c, err := mux.Accept()
		if err != nil {
			break
		}
		h.running.Go(func() { h.serve(ctx, c) })
	}
	_ = mux.Close()
	if h.device != nil {
		_ = h.device.Close()
	}
	return 0 // what still waits ends with the container
}

// helper is what the container's side knows.
type helper struct {
	mux     *yamux.Session
	stderr  io.Writer
	device  tun.Device
	running sync.WaitGroup
}

// serve answers one stream.
func (h *helper) serve(ctx context.Context, c net.Conn) {
	kind, port, err := readHead(c)
	if err != nil {
		_ = c.Close()
		return
	}
	switch kind {
	case kindPackets:
		err = h.packets(c)
	case kindDial:
		err = h.dial(ctx, c, port)
	case kindLook:
		if listening.OnLocalhost(port) {
			_, err = c.Write([]byte{answerYes})
		} else {
			_, err = c.Write([]byte{answerNo})
		}
		_ = c.Close()
	case kindListen:
		err = h.listen(ctx, c, port)
	case kindFiles:
		err = h.files(c, port)
	default:
		_ = c.Close()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(h.stderr, "helper:", err)
	}
}

// packets makes the device and carries its packets.
func (h *helper) packets(c net.Conn) error {
	defer c.Close()
	device, err := setUpDevice()
	if err != nil {
		fmt.Fprintln(h.stderr, "helper:", err)
		_, _ = c.Write([]byte{answerTrouble})
		return nil
	}
	h.device = device
	if _, err := c.Write([]byte{answerYes}); err != nil {
		return err
	}
	h.running.Go(func() {
		packet, out := make([]byte, maxPacket), make([]byte, 4+maxPacket)
		for {
			n, err := device.Read(packet)
			if err != nil || writePacket(c, out, packet[:n]) != nil {
				_ = c.Close()
				return
			}
		}
	})
	packet, in := make([]byte, maxPacket), bufio.NewReaderSize(c, 1<<17)
	for {
		n, err := readPacket(in, packet)
		if err != nil {
			return err
		}
		// A packet that the kernel refuses is lost, as packets may be.
		_, _ = device.Write(packet[:n])
	}
}

// files brings a volume up to date.
func (h *helper) files(c net.Conn, number uint16) error {
	defer c.Close()
	if _, err := c.Write([]byte{answerYes}); err != nil {
		return err
	}
	if err := applyFiles(bufio.NewReaderSize(c, 1<<17), fmt.Sprintf("%s/%d", volumesAt, number)); err != nil {
		fmt.Fprintln(h.stderr, "helper: copying the pod's files:", err)
		_, err := c.Write([]byte{answerTrouble})
		_, _ = io.Copy(io.Discard, c) // the client reads the answer when it has written all
		return err
	}
	_, err := c.Write([]byte{answerYes})
	return err
}

func (*helper) dial(ctx context.Context, c net.Conn, port uint16) error {
	local, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		local, err = new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("[::1]:%d", port))
	}
	if err != nil {
		_, err := c.Write([]byte{answerNo})
		return errors.Join(err, c.Close())
	}
	if _, err := c.Write([]byte{answerYes}); err != nil {
		return errors.Join(err, local.Close(), c.Close())
	}
	splice(ctx, halfCloser{c}, local)
	return nil
}

// listen hands over what comes to a port, for as long as the stream is open.
func (h *helper) listen(ctx context.Context, c net.Conn, port uint16) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		_, err := c.Write([]byte{answerNo})
		return errors.Join(err, c.Close())
	}
	if _, err := c.Write([]byte{answerYes}); err != nil {
		return errors.Join(err, l.Close(), c.Close())
	}
	h.running.Go(func() {
		_, _ = io.Copy(io.Discard, c)
		_ = l.Close()
		_ = c.Close()
	})
	for {
		caller, err := l.Accept()
		if err != nil {
			return nil
		}
		h.running.Go(func() {
			to, err := h.mux.Open()
			if err == nil {
				err = writeHead(to, kindAccepted, port)
			}
			if err != nil {
				_ = caller.Close()
				return
			}
			splice(ctx, halfCloser{to}, caller)
		})
	}
}

// replies is the table by which answers to callers of published ports go back
// the way they came, and not to the device.
const replies = 100

// setUpDevice makes the device, and leads everything to it that doesn't answer a
// caller from the engine's own network.
func setUpDevice() (tun.Device, error) {
	file, err := tun.OpenFile("telepresence", deviceMTU)
	if err != nil {
		return nil, err
	}
	if err := routeToDevice(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return tun.FromFile(file, deviceMTU)
}

func routeToDevice() error {
	link, err := netlink.LinkByName("telepresence")
	if err != nil {
		return fmt.Errorf("finding the device: %w", err)
	}
	before, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err != nil {
		return fmt.Errorf("reading the routes: %w", err)
	}
	for _, r := range before {
		if err := keepReplies(r); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting the device up: %w", err)
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(deviceAddr)}); err != nil {
		return fmt.Errorf("giving the device an address: %w", err)
	}
	for _, to := range []string{"0.0.0.0/1", "128.0.0.0/1"} { // before the engine's own default route
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(to))}); err != nil {
			return fmt.Errorf("leading %s to the device: %w", to, err)
		}
	}
	return routeV6(link)
}

// routeV6 leads IPv6 to the device too, where the container has it.
func routeV6(link netlink.Link) error {
	if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err != nil || len(off) == 0 || off[0] != '0' {
		return nil
	}
	own := netip.MustParsePrefix("fd9c:5f1a:7e1e::2/128")
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(own), Flags: unix.IFA_F_NODAD}); err != nil {
		return nil // off for this device: there is none then
	}
	err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("2000::/3"))})
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("fc00::/7"))})
	}
	if err != nil {
		return fmt.Errorf("leading IPv6 to the device: %w", err)
	}
	return nil
}

// keepReplies has packets that come from the container's address on the engine's
// network leave by the route that was the default one.
func keepReplies(r netlink.Route) error {
	if r.Gw == nil {
		return nil
	}
	link, err := netlink.LinkByIndex(r.LinkIndex)
	if err != nil {
		return fmt.Errorf("finding the engine's network: %w", err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) == 0 {
		return fmt.Errorf("finding the container's address: %w", errors.Join(err, unix.EADDRNOTAVAIL))
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: r.LinkIndex, Gw: r.Gw, Table: replies}); err != nil {
		return fmt.Errorf("keeping the way back to callers: %w", err)
	}
	rule := netlink.NewRule()
	rule.Src = &net.IPNet{IP: addrs[0].IP, Mask: net.CIDRMask(32, 32)}
	rule.Table = replies
	if err := netlink.RuleAdd(rule); err != nil {
		return fmt.Errorf("keeping the way back to callers: %w", err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
