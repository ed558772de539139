package plan

import (
	"fmt"
	"hash/fnv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The agent listens between these, below the ports that kernels give out by
// themselves (net.ipv4.ip_local_port_range begins at 32768).
const (
	firstAgentPort = 20000
	lastAgentPort  = 32767
)

// StandingPort is where the agent of a standing proxy listens unless its
// container's command says otherwise.
const StandingPort Port = 24817

// choosePorts merges --expose with the container's own TCP ports, of which each
// leads to the same port here unless --expose says where.
func (p *Plan) choosePorts(r Request) error {
	local, remote := make(map[Port]bool), make(map[Port]bool)
	for _, e := range r.Expose {
		if local[e.Local] {
			return &UsageError{fmt.Sprintf("local port %d is given to --expose twice", e.Local)}
		}
		if remote[e.Remote] {
			return &UsageError{fmt.Sprintf("the pod's port %d is given to --expose twice", e.Remote)}
		}
		local[e.Local], remote[e.Remote] = true, true
	}
	p.Ports = append([]Expose(nil), r.Expose...)
	if err := p.refuseOthers(remote); err != nil {
		return err
	}
	for _, c := range p.Pod.Spec.Containers {
		if c.Name != p.Container {
			continue
		}
		for _, cp := range c.Ports {
			port := Port(cp.ContainerPort)
			switch {
			case cp.Protocol != "" && cp.Protocol != corev1.ProtocolTCP:
				p.Warnings = append(p.Warnings, fmt.Sprintf("port %d/%s of the container doesn't come here: only TCP ports do", port, strings.ToLower(string(cp.Protocol))))
			case remote[port]:
			case local[port]:
				p.Warnings = append(p.Warnings, fmt.Sprintf("the container's port %d is not exposed: local port %d is taken by --expose", port, port))
			default:
				local[port], remote[port] = true, true
				p.Ports = append(p.Ports, Expose{Local: port, Remote: port})
			}
		}
	}
	return nil
}

// refuseOthers refuses ports on which another container of the pod listens.
func (p *Plan) refuseOthers(remote map[Port]bool) error {
	others := p.Pod.Spec.Containers
	for _, c := range p.Pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			others = append(others[:len(others):len(others)], c)
		}
	}
	for _, c := range others {
		for _, cp := range c.Ports {
			if c.Name != p.Container && remote[Port(cp.ContainerPort)] && cp.Protocol != corev1.ProtocolUDP {
				return &Refusal{
					Reason: fmt.Sprintf("the pod's port %d is container %s's, which stays", cp.ContainerPort, c.Name),
					Fix:    fmt.Sprintf("swap that container instead: --swap-deployment %s:%s", p.Target, c.Name),
				}
			}
		}
	}
	return nil
}

// agentPort is where the agent listens, on the pod's loopback: by the session,
// so that two proxies in one node's network namespace differ, and none that the
// pod is known to use.
func agentPort(id SessionID, spec corev1.PodSpec, ports []Expose) Port {
	taken := make(map[Port]bool)
	for _, e := range ports {
		taken[e.Remote] = true
	}
	for _, c := range append(spec.Containers[:len(spec.Containers):len(spec.Containers)], spec.InitContainers...) {
		for _, cp := range c.Ports {
			taken[Port(cp.ContainerPort)] = true
		}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	const span = lastAgentPort - firstAgentPort + 1
	for i := range uint32(span) {
		if port := Port(firstAgentPort + (h.Sum32()+i)%span); !taken[port] {
			return port
		}
	}
	return firstAgentPort
}

// standingPort is the port in the command of a standing proxy's container.
func standingPort(spec corev1.PodSpec, container string) Port {
	for _, c := range spec.Containers {
		if c.Name != container {
			continue
		}
		for _, arg := range append(c.Command[:len(c.Command):len(c.Command)], c.Args...) {
			if text, ok := strings.CutPrefix(arg, "--port="); ok {
				if port, err := ParsePort(text); err == nil {
					return port
				}
			}
		}
	}
	return StandingPort
}
