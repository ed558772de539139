package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ourRoutes marks the routes that don't go with the device, as the protocol that
// made them (ip-route(8)). It is a number that nobody else uses.
const ourRoutes netlink.RouteProtocol = 84

// repair undoes what a helper with that config has left.
func repair(cfg Config) error {
	return errors.Join(repairResolvConf(resolvConf), removePins(func(a netip.Addr) bool { return slices.Contains(cfg.Keep, a) }))
}

// clearAway undoes what an earlier session has left whose helper was killed
// together with all that would have undone it. Where another session lives, its
// routes and names stay; it has the resolver for itself if that can have but one.
func clearAway() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("looking for other sessions: %w", err)
	}
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, devicePrefix) })
	if i < 0 {
		return errors.Join(repairResolvConf(resolvConf), removePins(func(netip.Addr) bool { return true }))
	}
	if _, err := os.Lstat(resolvConf + aside); err != nil {
		return nil
	}
	return &Error{
		Problem: fmt.Sprintf("another session, whose device is %s, has this machine's %s", links[i].Attrs().Name, resolvConf),
		Way:     "end that session first, or use --method inject-tcp, of which there can be several",
	}
}

// removePins removes keepRoutes' routes to some addresses.
func removePins(to func(netip.Addr) bool) error {
	pins, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: ourRoutes}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("looking for routes of an earlier session: %w", err)
	}
	for _, r := range pins {
		if r.Dst == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(r.Dst.IP); !ok || !to(a.Unmap()) {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing the route to %s: %w", r.Dst, err)
		}
	}
	return nil
}
