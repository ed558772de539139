package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/telepresence/telepresence/pkg/listening"
	"github.com/telepresence/telepresence/pkg/process"
	"github.com/telepresence/telepresence/pkg/vpn/host"
	"github.com/telepresence/telepresence/pkg/vpn/resolver"
)

// onMachine is method vpn-tcp: the room is the whole machine.
type onMachine struct{ session *session }

// check sees that root is to be had.
func (*onMachine) check(context.Context) error {
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := exec.LookPath("sudo"); err != nil {
		return &host.Error{Problem: "method vpn-tcp needs root, and there is no sudo", Way: "run telepresence as root, or use --method inject-tcp"}
	}
	return nil
}

// open leads the cluster's addresses and names to a device.
func (m *onMachine) open(ctx context.Context, in furniture) (room, error) {
	o := m.session.o
	r := &machineRoom{}
	config, err := m.config(ctx, in)
	if err != nil {
		return nil, err
	}
	if r.Host, err = host.Start(ctx, config); err != nil {
		return nil, err
	}
	zones, _ := clusterDomains(resolver.ParseResolvConf(in.resolv).Search)
	r.domains, r.foreign = config.Domains[:len(zones)], config.Domains[len(zones):]
	r.search, r.ranges, r.returns = config.Search, config.Routes, o.LocalCluster
	r.process, err = process.Start(ctx, process.Config{
		Command: in.command, Env: over(o.Environ, in.variables),
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Log: o.Log,
	})
	if err != nil {
		return nil, errors.Join(err, r.Host.Close())
	}
	r.stopWatch = m.session.tasks.begin(ctx, "the privileged helper", r.watch)
	return r, nil
}

// config finds what is to go the cluster's way.
func (m *onMachine) config(ctx context.Context, in furniture) (host.Config, error) {
	s := m.session
	c := host.Config{Log: s.o.Log, Tell: s.ev.Tell, Stdin: s.o.Stdin, Stderr: s.o.Stderr}
	ranges, err := s.cluster.Ranges(ctx)
	if err != nil && len(s.o.AlsoProxy) == 0 {
		return c, err
	}
	c.Routes = slices.Concat(ranges.Services, ranges.Pods)
	c.Domains, c.Search = clusterDomains(resolver.ParseResolvConf(in.resolv).Search)
	for _, target := range s.o.AlsoProxy {
		routes, err := m.alsoProxy(ctx, target, in)
		if err != nil {
			return c, err
		}
		c.Routes = append(c.Routes, routes...)
		if _, err := netip.ParsePrefix(target); err != nil && !isAddr(target) {
			c.Domains = append(c.Domains, target)
		}
	}
	c.Routes = outermost(c.Routes)
	server, err := url.Parse(s.cluster.Server())
	if err != nil {
		return c, fmt.Errorf("reading the server's address: %w", err)
	}
	c.Keep, err = net.DefaultResolver.LookupNetIP(ctx, "ip", server.Hostname())
	if err != nil {
		return c, fmt.Errorf("finding the server's address: %w", err)
	}
	for i := range c.Keep {
		c.Keep[i] = c.Keep[i].Unmap()
	}
	return c, nil
}

func isAddr(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// alsoProxy is the routes to a target: a range, an address, or a name, which is
// looked up in the pod.
func (m *onMachine) alsoProxy(ctx context.Context, target string, in furniture) ([]netip.Prefix, error) {
	if p, err := netip.ParsePrefix(target); err == nil {
		return []netip.Prefix{p.Masked()}, nil
	}
	if a, err := netip.ParseAddr(target); err == nil {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, nil
	}
	inPod := resolver.New(resolver.Config{Exchange: m.session.tunnel.Exchange, Hosts: in.hosts, Log: m.session.o.Log})
	addrs, err := inPod.Lookup(ctx, target, resolver.ParseResolvConf(in.resolv).Search)
	if err != nil {
		return nil, fmt.Errorf("--also-proxy %s: looking it up in the pod: %w", target, err)
	}
	var routes []netip.Prefix
	for _, a := range addrs {
		routes = append(routes, netip.PrefixFrom(a, a.BitLen()))
	}
	return routes, nil
}

// clusterDomains are, of a pod's search list, the cluster's domain, and those of
// the list that lie in it. The rest of the list is the nodes', not the cluster's.
func clusterDomains(search []string) (domains, inside []string) {
	for _, d := range search {
		if zone, ok := strings.CutPrefix(d, "svc."); ok {
			domains = append(domains, zone)
		}
	}
	for _, d := range search {
		for _, zone := range domains {
			if d == zone || strings.HasSuffix(d, "."+zone) {
				inside = append(inside, d)
			}
		}
	}
	return domains, inside
}

// outermost are the ranges without those that lie in others of them.
func outermost(ranges []netip.Prefix) []netip.Prefix {
	var list []netip.Prefix
	for i, r := range ranges {
		within := func(j int, o netip.Prefix) bool {
			return j != i && o.Bits() <= r.Bits() && o.Contains(r.Addr()) && (o != r || j < i)
		}
		covered := false
		for j, o := range ranges {
			covered = covered || within(j, o)
		}
		if !covered {
			list = append(list, r)
		}
	}
	return list
}

// machineRoom is the machine, for one process.
type machineRoom struct {
	*host.Host
	process   *process.Process
	stopWatch func()
	domains   []string // the cluster's
	foreign   []string // of --also-proxy
	returns   bool     // --local-cluster
	search    []string
	ranges    []netip.Prefix
}

// watch ends the session when the helper is gone.
func (r *machineRoom) watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.Lost():
		return host.ErrLost
	}
}

// names has the machine's queries answered: those for the cluster's names inside.
func (r *machineRoom) names(inside *resolver.Resolver) resolver.Exchange {
	in := resolver.Inside{
		Domains: r.domains, Foreign: r.foreign, Ranges: r.ranges, Search: r.search,
		Knows: inside.Knows, Answer: inside.Answer, Returns: r.returns,
	}
	before := r.Nameservers()
	if len(before) == 0 { // the machine's resolver sends nothing else, and can't be asked from here
		in.Search, in.Again = nil, resolver.Nowhere
		return resolver.Split(in, inside.Answer)
	}
	servers := make([]netip.AddrPort, len(before))
	for i, a := range before {
		servers[i] = netip.AddrPortFrom(a, 53)
	}
	return resolver.Split(in, resolver.Nameservers(servers))
}

// Dial connects to the machine's localhost.
func (*machineRoom) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

// Listening tells whether something listens on the machine's localhost.
func (*machineRoom) Listening(port uint16) bool { return listening.OnLocalhost(port) }

// ListenInside listens on the machine's localhost.
func (*machineRoom) ListenInside(ctx context.Context, port uint16) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

// Release starts the process.
func (r *machineRoom) Release() error { return r.process.Release() }

// Wait returns the process's exit code.
func (r *machineRoom) Wait() (int, error) {
	status, err := r.process.Wait()
	return status.ExitCode(), err
}

// Signal sends the process a signal.
func (r *machineRoom) Signal(sig os.Signal) error { return r.process.Signal(sig) }

// Close ends the process and puts the machine back.
func (r *machineRoom) Close() error {
	r.stopWatch()
	return errors.Join(r.process.Close(), r.Host.Close())
}
