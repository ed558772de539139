package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// deviceName is the interface's; the kernel puts a number for %d.
const deviceName = devicePrefix + "%d"

const devicePrefix = "telepresence"

// setUp makes the device and leads the cluster's addresses and names to it. What
// it has done when it fails, undo undoes.
func (m *machine) setUp(cfg Config) (answer, *os.File, error) {
	if err := clearAway(); err != nil {
		return answer{}, nil, err
	}
	has, err := routes()
	if err != nil {
		return answer{}, nil, err
	}
	notes, err := collide(cfg.Routes, has)
	if err != nil {
		return answer{}, nil, err
	}
	own, dns, err := freeAddresses(has)
	if err != nil {
		return answer{}, nil, err
	}
	if err := m.startGuard(cfg); err != nil { // only now: until here, what there is may be another session's
		return answer{}, nil, err
	}
	device, err := tun.OpenFile(deviceName, tun.DefaultMTU)
	if err != nil {
		return answer{}, nil, err
	}
	m.at("device")
	link, err := m.addDevice(device, own, cfg.Routes)
	if err == nil {
		m.at("addresses")
		err = m.keepRoutes(cfg)
	}
	if err == nil {
		m.at("pins")
		err = addRoutes(link, cfg.Routes)
	}
	var before []netip.Addr
	if err == nil {
		m.at("routes")
		before, err = m.setDNS(link.Attrs().Index, dns, cfg)
	}
	if err != nil {
		return answer{}, nil, errors.Join(err, device.Close())
	}
	m.at("names")
	return answer{Notes: notes, DNSAddr: dns, Nameservers: before}, device, nil
}

// routes are the machine's own, of all its tables but the local one. The default
// routes are among them.
func routes() ([]route, error) {
	var list []route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		found, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("reading this machine's routes: %w", err)
		}
		for _, r := range found {
			if r.Table == unix.RT_TABLE_LOCAL || r.Dst == nil {
				continue
			}
			addr, ok := netip.AddrFromSlice(r.Dst.IP)
			bits, _ := r.Dst.Mask.Size()
			if !ok {
				continue
			}
			list = append(list, route{to: netip.PrefixFrom(addr.Unmap(), bits), device: linkName(r.LinkIndex)})
		}
	}
	return list, nil
}

func linkName(index int) string {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("interface %d", index)
	}
	return link.Attrs().Name
}

// addDevice gives the device its addresses. It goes, with its routes, when its
// last descriptor is closed.
func (m *machine) addDevice(device *os.File, own netip.Addr, ranges []netip.Prefix) (netlink.Link, error) {
	name, err := tun.Name(device)
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("finding device %s: %w", name, err)
	}
	addresses := []netip.Prefix{netip.PrefixFrom(own, 30)}
	if slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		addresses = append(addresses, netip.PrefixFrom(ownV6, 128))
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("setting device %s up: %w", name, err)
	}
	for _, a := range addresses {
		// No duplicate address detection: nobody else is on this link.
		addr := &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return nil, fmt.Errorf("giving device %s the address %s: %w", name, a, err)
		}
	}
	return link, nil
}

func addRoutes(link netlink.Link, ranges []netip.Prefix) error {
	for _, r := range ranges {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r), Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("adding a route to %s: %w", r, err)
		}
	}
	return nil
}

// keepRoutes pins the way to addresses that our routes would hold: the tunnel's
// own connection must not go through the tunnel.
func (m *machine) keepRoutes(cfg Config) error {
	for _, addr := range cfg.Keep {
		if !slices.ContainsFunc(cfg.Routes, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			continue
		}
		now, err := netlink.RouteGet(net.IP(addr.AsSlice()))
		if err != nil || len(now) == 0 {
			return fmt.Errorf("finding the way to %s: %w", addr, errors.Join(err, unix.ENETUNREACH))
		}
		pinned := &netlink.Route{
			LinkIndex: now[0].LinkIndex, Gw: now[0].Gw, Dst: ipNet(netip.PrefixFrom(addr, addr.BitLen())), Protocol: ourRoutes,
		}
		switch err := netlink.RouteAdd(pinned); {
		case errors.Is(err, unix.EEXIST): // it is pinned already
		case err != nil:
			return fmt.Errorf("keeping the way to %s: %w", addr, err)
		default:
			m.did(func() error {
				if err := netlink.RouteDel(pinned); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("removing the route to %s: %w", addr, err)
				}
				return nil
			})
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
