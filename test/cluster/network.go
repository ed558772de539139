package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// A network is the 10.x.0.0/16 that one cluster has to itself:
//
//	10.x.0.1          the control plane; the bridge that joins all machines is its
//	10.x.0.10+n       node n
//	10.x.0.254        this host, which reaches the API server and the nodes, but no pod and no service
//	10.x.64.0/18      services; .64.1 the API server's, .64.10 the DNS server's
//	10.x.128+n.0/24   the pods of node n
//
// The host sees one interface of it; bridge and routes are in the namespaces
// of the machines and go with them.
type network struct {
	Number int `json:"number"` // x
}

const (
	firstNetwork, lastNetwork = 201, 250
	maxNodes                  = 120
	bridgeName                = "br0"
)

func (n network) address(third, fourth int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n.Number), byte(third), byte(fourth)})
}

func (n network) hostInterface() string      { return "tpc" + strconv.Itoa(n.Number) }
func (n network) host() netip.Addr           { return n.address(0, 254) }
func (n network) control() netip.Addr        { return n.address(0, 1) }
func (n network) node(number int) netip.Addr { return n.address(0, 10+number) }
func (n network) dns() netip.Addr            { return n.address(64, 10) }
func (n network) api() netip.Addr            { return n.address(64, 1) }
func (n network) server() string             { return fmt.Sprintf("https://%s:6443", n.control()) }
func (n network) services() netip.Prefix     { return netip.PrefixFrom(n.address(64, 0), 18) }
func (n network) allPods() netip.Prefix      { return netip.PrefixFrom(n.address(128, 0), 17) }
func (n network) whole() netip.Prefix        { return netip.PrefixFrom(n.address(0, 0), 16) }

func (n network) pods(node int) netip.Prefix {
	return netip.PrefixFrom(n.address(128+node, 0), 24)
}

// claimNetwork takes a network that nothing on this machine uses, for the
// control plane in process pid's namespace. The interface's name is the claim:
// of two who try at once one is told that it exists.
func claimNetwork(pid int) (network, error) {
	used, err := routedPrefixes()
	if err != nil {
		return network{}, err
	}
	last := errors.New("every network from 10.201.0.0/16 to 10.250.0.0/16 is in use")
	for number := firstNetwork; number <= lastNetwork; number++ {
		n := network{Number: number}
		if overlaps(used, n.whole()) {
			continue
		}
		last = command("ip", "link", "add", n.hostInterface(), "type", "veth", "peer", "name", "host", "netns", strconv.Itoa(pid))
		if last == nil {
			return n, nil
		}
		if !strings.Contains(last.Error(), "File exists") {
			break
		}
	}
	return network{}, fmt.Errorf("finding a network for the cluster: %w", last)
}

func overlaps(used []netip.Prefix, wanted netip.Prefix) bool {
	for _, prefix := range used {
		if prefix.Bits() > 0 && prefix.Overlaps(wanted) {
			return true
		}
	}
	return false
}

// routedPrefixes are the IPv4 prefixes in this machine's main routing table.
func routedPrefixes() ([]netip.Prefix, error) {
	text, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil, fmt.Errorf("reading the routes: %w", err)
	}
	var prefixes []netip.Prefix
	for _, line := range strings.Split(string(text), "\n")[1:] {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		destination, errD := strconv.ParseUint(fields[1], 16, 32)
		mask, errM := strconv.ParseUint(fields[7], 16, 32)
		if err := errors.Join(errD, errM); err != nil {
			return nil, fmt.Errorf("reading route %q: %w", line, err)
		}
		bits := 0
		for ; mask != 0; mask &= mask - 1 {
			bits++
		}
		// The kernel prints the address as the machine's own integer: its first byte comes last.
		address := netip.AddrFrom4([4]byte{byte(destination), byte(destination >> 8), byte(destination >> 16), byte(destination >> 24)})
		prefixes = append(prefixes, netip.PrefixFrom(address, bits))
	}
	return prefixes, nil
}

// in runs ip(8) in the network namespace of process pid, once per line.
func in(pid int, script string) error {
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		args := append([]string{"--target", strconv.Itoa(pid), "--net", "ip"}, strings.Fields(line)...)
		if err := command("nsenter", args...); err != nil {
			return err
		}
	}
	return nil
}

// connectControl gives the control plane its bridge and the host its address.
func (n network) connectControl(pid int) error {
	err := in(pid, fmt.Sprintf(`
link set lo up
link add %[1]s type bridge
link set host master %[1]s
link set host up
link set %[1]s up
addr add %[2]s/24 dev %[1]s`, bridgeName, n.control()))
	if err != nil {
		return err
	}
	if err := command("ip", "addr", "add", n.host().String()+"/24", "dev", n.hostInterface()); err != nil {
		return err
	}
	return command("ip", "link", "set", n.hostInterface(), "up")
}

// connectNode joins a node to the bridge. What its own processes send to a
// service needs a route before kube-proxy can rewrite it.
func (n network) connectNode(controlPID, pid, number int) error {
	port := "node" + strconv.Itoa(number)
	if err := in(controlPID, fmt.Sprintf(`
link add %[1]s type veth peer name eth0 netns %[2]d
link set %[1]s master %[3]s
link set %[1]s up`, port, pid, bridgeName)); err != nil {
		return err
	}
	return in(pid, fmt.Sprintf(`
link set lo up
addr add %s/24 dev eth0
link set eth0 up
route add %s via %s`, n.node(number), n.services(), n.control()))
}

// routePods tells each machine on which node every other's pods are.
func (n network) routePods(pids map[int]int, controlPID int) error {
	for number := range pids {
		route := fmt.Sprintf("route replace %s via %s", n.pods(number), n.node(number))
		if err := in(controlPID, route); err != nil {
			return err
		}
		for other, pid := range pids {
			if other == number {
				continue
			}
			if err := in(pid, route); err != nil {
				return err
			}
		}
	}
	return nil
}
