package sandbox

import (
	"net/netip"
	"strings"
)

// resolvConf is the pod's resolv.conf with a nameserver of our own in place of
// the pod's.
func resolvConf(pods string, server netip.Addr) string {
	var b strings.Builder
	b.WriteString("nameserver " + server.String() + "\n")
	for line := range strings.Lines(pods) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "nameserver" {
			continue
		}
		b.WriteString(strings.TrimRight(line, "\r\n") + "\n")
	}
	return b.String()
}

// hostsFile is the pod's hosts file, with the lines for localhost that it lacks.
func hostsFile(pods string) string {
	has := map[string]bool{}
	for line := range strings.Lines(pods) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		for i := 1; i < len(f); i++ {
			if f[i] == "localhost" {
				has[f[0]] = true
			}
		}
	}
	var b strings.Builder
	if !has["127.0.0.1"] {
		b.WriteString("127.0.0.1\tlocalhost\n")
	}
	if !has["::1"] {
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	}
	b.WriteString(pods)
	if pods != "" && !strings.HasSuffix(pods, "\n") {
		b.WriteString("\n")
	}
	return b.String()
}

// nsswitchConf is the machine's nsswitch.conf, in which names of hosts come from
// hosts and resolv.conf only: what else answers there (systemd-resolved, mDNS,
// a directory) knows this machine's names, not the pod's.
func nsswitchConf(machines string) string {
	var b strings.Builder
	for line := range strings.Lines(machines) {
		database, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		if strings.TrimSpace(database) == "hosts" {
			continue
		}
		b.WriteString(strings.TrimRight(line, "\r\n") + "\n")
	}
	b.WriteString("hosts: files dns\n")
	return b.String()
}
