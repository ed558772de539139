package sandbox

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestSandboxIsThePod(t *testing.T) {
	t.Parallel()
	got := run(t, Config{
		Hostname:   "web-5d8f-x2x9z",
		ResolvConf: "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
		Hosts:      "10.1.2.3\tweb-5d8f-x2x9z\n",
		Addresses:  []netip.Addr{netip.MustParseAddr("10.1.2.3")},
	}, `uname -n; cat /etc/resolv.conf; echo --; cat /etc/hosts; echo --; grep ^hosts /etc/nsswitch.conf
		id -u; id -g; cat /proc/sys/net/ipv4/ip_unprivileged_port_start`)
	want := fmt.Sprintf(`web-5d8f-x2x9z
nameserver 198.18.0.2
search shop.svc.cluster.local svc.cluster.local
options ndots:5
--
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
10.1.2.3	web-5d8f-x2x9z
--
hosts: files dns
%d
%d
0
`, os.Getuid(), os.Getgid())
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestSandboxProcessHasNoMoreRights(t *testing.T) {
	t.Parallel()
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	caps := func(status string) (found []string) {
		for l := range strings.Lines(status) {
			if strings.HasPrefix(l, "CapPrm:") || strings.HasPrefix(l, "CapEff:") || strings.HasPrefix(l, "CapInh:") || strings.HasPrefix(l, "CapAmb:") {
				found = append(found, strings.Join(strings.Fields(l), " "))
			}
		}
		return found
	}
	if got, want := caps(run(t, Config{}, "cat /proc/self/status")), caps(string(own)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSandboxDevice(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Addresses: []netip.Addr{netip.MustParseAddr("10.9.8.7"), netip.MustParseAddr("fd12::34")}},
		`python3 -c '
import socket
for family, to in ((socket.AF_INET, ("10.200.1.2", 53)), (socket.AF_INET6, ("fd99::1", 53))):
    s = socket.socket(family, socket.SOCK_DGRAM); s.sendto(b"hello", to)
'`)
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"10.9.8.7>10.200.1.2": true, "fd12::34>fd99::1": true}
	buf := make([]byte, s.Device().MTU())
	for len(want) > 0 {
		n, err := s.Device().Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		p := buf[:n]
		if !strings.HasSuffix(string(p), "hello") {
			continue
		}
		from, to := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		if p[0]>>4 == 6 {
			from, to = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
		}
		delete(want, from.String()+">"+to.String())
	}
	if _, err := s.Wait(); err != nil {
		t.Error(err)
	}
}
