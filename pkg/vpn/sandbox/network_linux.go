package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// deviceName is what the device is called in the sandbox: as in a pod.
const deviceName = "eth0"

// bypassMark marks the sockets that the rules for the machine's localhost let
// pass.
const bypassMark = 0x7e1e

// setUpNetwork makes the device, and everything go to it.
func setUpNetwork(cfg childConfig) (*os.File, error) {
	sysctls()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return nil, &Error{Op: "setting up the loopback device", Err: err}
	}
	f, err := tun.OpenFile(deviceName, tun.DefaultMTU)
	if err != nil {
		return nil, &Error{Op: "opening a TUN device", Err: err}
	}
	if err := setUpDevice(cfg.Addresses); err != nil {
		_ = f.Close()
		return nil, &Error{Op: "setting up the TUN device", Err: err}
	}
	return f, nil
}

func setUpDevice(addrs []netip.Addr) error {
	link, err := netlink.LinkByName(deviceName)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	routed := map[bool]bool{}
	for _, a := range addrs {
		whole := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
		err := netlink.AddrAdd(link, &netlink.Addr{IPNet: whole, Flags: unix.IFA_F_NODAD})
		if a.Is6() && errors.Is(err, unix.EOPNOTSUPP) || a.Is6() && errors.Is(err, unix.EACCES) {
			continue // a kernel without IPv6, or one in which it is switched off
		}
		if err != nil {
			return fmt.Errorf("adding address %s: %w", a, err)
		}
		if routed[a.Is6()] {
			continue
		}
		routed[a.Is6()] = true
		all := &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Src: a.AsSlice()}
		if a.Is4() {
			route.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("adding the default route by %s: %w", a, err)
		}
	}
	return nil
}

// sysctls sets what a pod's network namespace usually has. Where that is not
// allowed, little is lost.
func sysctls() {
	gid := os.Getgid()
	for _, s := range []struct{ path, value string }{
		{"ipv4/ip_unprivileged_port_start", "0"}, // the process may listen on port 80, as in the pod
		{"ipv4/ping_group_range", fmt.Sprintf("%d %d", gid, gid)},
		{"ipv6/conf/all/disable_ipv6", "0"},
		{"ipv6/conf/default/disable_ipv6", "0"},
		{"ipv6/conf/lo/disable_ipv6", "0"},
		{"ipv6/conf/default/accept_ra", "0"},
	} {
		_ = os.WriteFile("/proc/sys/net/"+s.path, []byte(s.value), 0)
	}
}

func family(network string) int {
	if network == "tcp6" {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// tcpSocket is an unconnected socket of this network namespace, for which the
// machine's localhost is out of reach.
func tcpSocket(network string) (*os.File, error) {
	fd, err := unix.Socket(family(network), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "making a socket", Err: err}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, bypassMark); err != nil {
		_ = unix.Close(fd)
		return nil, &Error{Op: "marking a socket", Err: err}
	}
	return os.NewFile(uintptr(fd), "tcp"), nil
}

// listen is a listening socket of this network namespace. A transparent one
// also takes connections to other addresses than its own.
func listen(network string, addr netip.AddrPort, transparent bool) (*os.File, error) {
	f, err := tcpSocket(network)
	if err != nil {
		return nil, err
	}
	if err := bindAndListen(int(f.Fd()), addr, transparent); err != nil {
		_ = f.Close()
		return nil, &Error{Op: "listening on " + addr.String(), Err: err}
	}
	return f, nil
}

func bindAndListen(fd int, addr netip.AddrPort, transparent bool) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	var to unix.Sockaddr
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if addr.Addr().Is4() {
		to = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	if addr.Addr().Is6() {
		to = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if transparent {
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, to); err != nil {
		return err
	}
	return unix.Listen(fd, unix.SOMAXCONN)
}
