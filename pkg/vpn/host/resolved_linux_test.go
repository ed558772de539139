package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/vpn"
	"github.com/telepresence/telepresence/test/wait"
)

// resolvedFiles make a machine whose programs ask systemd-resolved, and that a
// nameserver.
var resolvedFiles = map[string]string{
	"passwd":                "root:x:0:0::/:/bin/sh\nsystemd-resolve:x:992:992::/:/bin/false\n",
	"group":                 "root:x:0:\nsystemd-resolve:x:992:\n",
	"nsswitch.conf":         "passwd: files\ngroup: files\nhosts: files dns\n",
	"hosts":                 "127.0.0.1 localhost\n",
	"resolv.conf":           "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.test\n",
	"systemd/resolved.conf": "[Resolve]\nDNS=127.0.0.9\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\nCache=no\n",
	"bus.conf": `<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
		<policy context="default">
			<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/>
		</policy></busconfig>`,
}

// systemdResolved is the program: the machine's own, or what test set-up has
// unpacked, as its package would make it the machine's.
func systemdResolved(t *testing.T) *exec.Cmd {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	unpacked := filepath.Join(cache, "telepresence-tools", "systemd-resolved")
	for _, root := range []string{"/", unpacked} {
		path := filepath.Join(root, "lib/systemd/systemd-resolved")
		if _, err := os.Stat(path); err != nil {
			continue
		}
		libraries, err := filepath.Glob(filepath.Join(unpacked, "usr/lib/*/systemd"))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
		return cmd
	}
	t.Skip("no systemd-resolved here: test set-up fetches it")
	return nil
}

// startResolved starts the bus and systemd-resolved, until the test's end.
func startResolved(t *testing.T, daemon *exec.Cmd) *dbus.Conn {
	t.Helper()
	for name, text := range resolvedFiles {
		path := filepath.Join("/etc", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as it is
			t.Fatal(err)
		}
		write(t, path, text, 0o644)
	}
	for _, dir := range []string{"/run/dbus", "/run/systemd"} {
		if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // as it is
			t.Fatal(err)
		}
	}
	for _, cmd := range []*exec.Cmd{exec.Command("dbus-daemon", "--config-file=/etc/bus.conf", "--nofork", "--nopidfile"), daemon} {
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		wait.Until(t, patience, "the bus is there", func() bool {
			_, err := os.Stat("/run/dbus/system_bus_socket")
			return err == nil
		})
	}
	var bus *dbus.Conn
	wait.Until(t, patience, "systemd-resolved answers", func() bool {
		var err error
		bus, err = resolved()
		return err == nil
	})
	t.Cleanup(func() { _ = bus.Close() })
	return bus
}

// nameserver answers every query with one address, and keeps what it was asked.
type nameserver struct {
	addr netip.Addr

	mu    sync.Mutex
	asked []string
}

func (n *nameserver) answer(query *dns.Msg) *dns.Msg {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := new(dns.Msg).SetReply(query)
	q := query.Question[0]
	n.asked = append(n.asked, q.Name)
	if q.Qtype == dns.TypeA {
		a.Answer = append(a.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: n.addr.AsSlice(),
		})
	}
	return a
}

// wasAsked tells whether a name was asked for.
func (n *nameserver) wasAsked(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.asked, name)
}

// ServeDNS is answer for the machine's nameserver.
func (n *nameserver) ServeDNS(w dns.ResponseWriter, query *dns.Msg) { _ = w.WriteMsg(n.answer(query)) }

// Answer is answer for the cluster's nameserver.
func (n *nameserver) Answer(_ context.Context, query []byte) ([]byte, error) {
	m := new(dns.Msg)
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	return n.answer(m).Pack()
}

// nobody is a dialer to a cluster where nothing answers but names.
type nobody struct{}

// DialContext is refused.
func (nobody) DialContext(context.Context, string, netip.AddrPort) (net.Conn, error) {
	return nil, unix.ECONNREFUSED
}

// Ping isn't answered.
func (nobody) Ping(context.Context, netip.Addr, []byte) error { return unix.EHOSTUNREACH }

// askResolved is the address that a program of the machine's gets for a name.
func askResolved(t *testing.T, name string) netip.Addr {
	t.Helper()
	m, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), "127.0.0.53:53")
	if err != nil {
		return netip.Addr{}
	}
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			addr, _ := netip.AddrFromSlice(a.A.To4())
			return addr
		}
	}
	return netip.Addr{}
}

// domains are those that systemd-resolved knows, routing ones with a ~.
func domains(t *testing.T, bus *dbus.Conn) []string {
	t.Helper()
	value, err := bus.Object(resolvedName, "/org/freedesktop/resolve1").GetProperty(resolvedName + ".Manager.Domains")
	var known []struct {
		Link    int32
		Domain  string
		Routing bool
	}
	if err == nil {
		err = value.Store(&known)
	}
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, d := range known {
		if d.Routing {
			d.Domain = "~" + d.Domain
		}
		list = append(list, d.Domain)
	}
	return list
}

// With systemd-resolved, the cluster's names alone come here, resolv.conf stays
// as it is, and nothing is left of a session, whoever of it is killed.
func TestResolved(t *testing.T) {
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("no dbus-daemon here: test set-up installs it")
	}
	daemon := systemdResolved(t)
	if !alone(t) {
		return
	}
	machines, clusters := &nameserver{addr: netip.MustParseAddr("192.0.2.7")}, &nameserver{addr: netip.MustParseAddr("10.96.0.7")}
	server := &dns.Server{Addr: "127.0.0.9:53", Net: "udp", Handler: machines}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.ListenAndServe() })
	t.Cleanup(func() {
		_ = server.Shutdown()
		serving.Wait()
	})
	bus := startResolved(t, daemon)
	const inCluster, other, elsewhere = "web.shop.svc.cluster.local.", "other.cluster.local.", "elsewhere.example."
	wait.Until(t, patience, "the machine has names", func() bool { return askResolved(t, elsewhere) == machines.addr })
	before := state(t)

	for _, victim := range []string{"", driverRole, "/socket"} {
		splitNames(t, bus, clusters, func() {
			// It takes a moment until it has seen the device.
			wait.Until(t, patience, "the cluster has names", func() bool { return askResolved(t, inCluster) == clusters.addr })
			if got := askResolved(t, other); got != clusters.addr || machines.wasAsked(other) {
				t.Errorf("%s is %v, want %v", other, got, clusters.addr)
			}
			if got := askResolved(t, elsewhere); got != machines.addr || clusters.wasAsked(elsewhere) {
				t.Errorf("%s is %v, want %v", elsewhere, got, machines.addr)
			}
		}, victim)
		wait.Until(t, patience, "its domains are gone", func() bool { return len(domains(t, bus)) == 0 })
		if got := askResolved(t, inCluster); got == clusters.addr {
			t.Errorf("afterwards, %s is still %v", inCluster, got)
		}
		wait.Until(t, patience, "the machine is as before", func() bool { return state(t) == before })
	}
}

// splitNames has a session while use is called, and ends it by a victim's death.
func splitNames(t *testing.T, bus *dbus.Conn, clusters *nameserver, use func(), victim string) {
	t.Helper()
	if victim == driverRole {
		session := exec.Command("/proc/self/exe", driverRole)
		in, err := session.StdinPipe()
		if err == nil {
			err = session.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = in.Close() }()
		wait.Until(t, patience, "its domains are there", func() bool { return len(domains(t, bus)) == 2 })
		kill(t, victim)
		_ = session.Wait()
		return
	}
	h, err := Start(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"shop.svc.cluster.local", "~cluster.local"}; !slices.Equal(domains(t, bus), want) {
		t.Errorf("its domains are %q, want %q", domains(t, bus), want)
	}
	if len(h.Nameservers()) > 0 {
		t.Errorf("other names come here too, to be asked at %v", h.Nameservers())
	}
	engine, err := vpn.New(vpn.Config{Device: h.Device(), Dialer: nobody{}, DNS: clusters.Answer, DNSAddr: h.DNSAddr()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := engine.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	use()
	if victim != "" {
		kill(t, victim)
		<-h.Lost()
	}
	cancel()
	running.Wait()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}
