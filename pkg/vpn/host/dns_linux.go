package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// setDNS leads the cluster's names to dns: by the machine's systemd-resolved,
// which sends it those and no others, or else by resolv.conf, where it is then the
// only nameserver. It returns the nameservers that were there in that case, which
// the parent asks for all other names.
func (m *machine) setDNS(link int, dns netip.Addr, cfg Config) ([]netip.Addr, error) {
	if bus, err := resolved(); err == nil {
		defer bus.Close()
		return nil, setLinkDNS(bus, link, dns, cfg)
	}
	undo, before, err := replaceResolvConf(resolvConf, dns, cfg.Search)
	if err != nil {
		return nil, err
	}
	m.did(undo)
	return before, nil
}

// How long systemd-resolved may take to answer.
const resolvedWithin = 5 * time.Second

// resolvedName is systemd-resolved's on the system bus
// (https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.resolve1.html).
const resolvedName = "org.freedesktop.resolve1"

// resolved connects to the bus on which systemd-resolved answers, if it is what
// the machine's programs ask.
func resolved() (*dbus.Conn, error) {
	now, err := readResolvConf(resolvConf)
	if err != nil {
		return nil, err
	}
	stub := netip.AddrFrom4([4]byte{127, 0, 0, 53})
	if !slices.Contains(now, stub) {
		return nil, errors.New("systemd-resolved isn't asked here")
	}
	bus, err := dbus.ConnectSystemBus()
	if err != nil {
		return nil, err
	}
	var owned bool
	err = bus.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, resolvedName).Store(&owned)
	if err == nil && !owned {
		err = errors.New("systemd-resolved doesn't run")
	}
	if err != nil {
		return nil, errors.Join(err, bus.Close())
	}
	return bus, nil
}

// linkAddress and linkDomain are how the bus has a server and a domain.
type (
	linkAddress struct {
		Family  int32
		Address []byte
	}
	linkDomain struct {
		Domain  string
		Routing bool // its names go to the link, but it isn't tried for short ones
	}
)

// setLinkDNS tells systemd-resolved of the device. That forgets it with the
// device, so that there is nothing to undo.
func setLinkDNS(bus *dbus.Conn, link int, dns netip.Addr, cfg Config) error {
	index := int32(link)
	var domains []linkDomain
	for _, d := range cfg.Search {
		domains = append(domains, linkDomain{d, false})
	}
	for _, d := range cfg.Domains {
		if !slices.Contains(cfg.Search, d) {
			domains = append(domains, linkDomain{d, true})
		}
	}
	manager := bus.Object(resolvedName, "/org/freedesktop/resolve1")
	for _, call := range []struct {
		method string
		value  any
	}{
		{"SetLinkDNS", []linkAddress{{unix.AF_INET, dns.AsSlice()}}},
		{"SetLinkDomains", domains},
		{"SetLinkDefaultRoute", false},
		{"SetLinkDNSSEC", "no"}, // a cluster's names are in no signed zone
		{"SetLinkDNSOverTLS", "no"},
	} {
		answered := manager.Go(resolvedName+".Manager."+call.method, 0, make(chan *dbus.Call, 1), index, call.value)
		err := os.ErrDeadlineExceeded
		select {
		case <-answered.Done:
			err = answered.Err
		case <-time.After(resolvedWithin):
		}
		if err != nil {
			return fmt.Errorf("telling systemd-resolved of the cluster's names (%s): %w", strings.TrimPrefix(call.method, "SetLink"), err)
		}
	}
	return nil
}
