package dockerrun

import (
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"
)

// helperConfig is the helper container: it may change its own network, and
// nothing else.
func helperConfig(cfg Config, image string) (*container.Config, *container.HostConfig, error) {
	a := cfg.Args
	exposed, bindings, err := nat.ParsePortSpecs(a.publish)
	if err != nil {
		return nil, nil, &UsageError{fmt.Sprintf("docker run's --publish: %v", err)}
	}
	for _, text := range a.expose {
		proto, port := nat.SplitProtoPort(text)
		p, err := nat.NewPort(proto, port)
		if err != nil {
			return nil, nil, &UsageError{fmt.Sprintf("docker run's --expose: %v", err)}
		}
		exposed[p] = struct{}{}
	}
	hostname := a.hostname
	if hostname == "" {
		hostname = cfg.Hostname
	}
	search, options := searchAndOptions(cfg.ResolvConf)
	return &container.Config{
			Image: image, Cmd: []string{HelperArg}, Hostname: hostname,
			OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true,
			ExposedPorts: exposed, Labels: map[string]string{labelSession: cfg.Session, labelRole: roleHelper},
		}, &container.HostConfig{
			AutoRemove: true, CapDrop: []string{"ALL"}, CapAdd: []string{"NET_ADMIN"}, ReadonlyRootfs: true,
			SecurityOpt:     []string{"no-new-privileges"},
			PortBindings:    bindings,
			PublishAllPorts: a.publishAll,
			DNS:             append([]string{dnsAddr.String()}, a.dns...),
			DNSSearch:       append(a.dnsSearch[:len(a.dnsSearch):len(a.dnsSearch)], search...),
			DNSOptions:      append(a.dnsOption[:len(a.dnsOption):len(a.dnsOption)], options...),
			ExtraHosts:      a.addHost,
			// The user's program may be nobody in particular, and listen on port 80
			// as it does in the pod.
			Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
			Resources: container.Resources{Devices: []container.DeviceMapping{{
				PathOnHost: "/dev/net/tun", PathInContainer: "/dev/net/tun", CgroupPermissions: "rwm",
			}}},
		}, nil
}

// searchAndOptions are those of a resolv.conf (resolv.conf(5)).
func searchAndOptions(text string) (search, options []string) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "search":
			search = fields[1:]
		case "options":
			options = append(options, fields[1:]...)
		}
	}
	return search, options
}
