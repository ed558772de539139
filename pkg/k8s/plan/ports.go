package plan

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The agent listens between these, below the ports that kernels give out by
// themselves (net.ipv4.ip_local_port_range begins at 32768), and below the
// service ports of nodes (30000 and on), whose network a pod may use.
const (
	firstAgentPort = 20000
	lastAgentPort  = 29999
)

// claimed are the ports that have a purpose already, on either side.
type claimed struct{ local, remote map[Port]bool }

// choosePorts merges --expose with the container's own TCP ports, of which each
// leads to the same port here unless --expose says where.
func (p *Plan) choosePorts(r Request) error {
	taken := claimed{make(map[Port]bool), make(map[Port]bool)}
	for _, e := range r.Expose {
		if taken.local[e.Local] {
			return &UsageError{fmt.Sprintf("local port %d is given to --expose twice", e.Local)}
		}
		if taken.remote[e.Remote] {
			return &UsageError{fmt.Sprintf("the pod's port %d is given to --expose twice", e.Remote)}
		}
		taken.local[e.Local], taken.remote[e.Remote] = true, true
	}
	for _, port := range r.ToPod {
		if taken.local[port] {
			return &UsageError{fmt.Sprintf("local port %d is given to --to-pod and to another option", port)}
		}
		taken.local[port] = true
	}
	for _, port := range r.FromPod {
		if taken.remote[port] {
			return &UsageError{fmt.Sprintf("the pod's port %d is given to --from-pod and to another option", port)}
		}
		taken.remote[port] = true
	}
	if err := p.refuseOthers(taken.remote); err != nil {
		return err
	}
	p.Ports = slices.Clone(r.Expose)
	if c := p.container(); c != nil {
		p.exposeOwn(c.Ports, taken)
	}
	return nil
}

// exposeOwn adds a container's ports to those that were asked for.
func (p *Plan) exposeOwn(ports []corev1.ContainerPort, taken claimed) {
	for _, cp := range ports {
		port := Port(cp.ContainerPort)
		switch {
		case cp.Protocol != "" && cp.Protocol != corev1.ProtocolTCP:
			p.warnf("port %d/%s of the container doesn't come here: only TCP ports do", port, strings.ToLower(string(cp.Protocol)))
		case taken.remote[port]:
		case taken.local[port]:
			p.warnf("the container's port %d is not exposed: port %d here has another purpose", port, port)
		default:
			taken.local[port], taken.remote[port] = true, true
			p.Ports = append(p.Ports, Expose{Local: port, Remote: port})
		}
	}
}

// refuseOthers refuses ports on which another container of the pod listens.
func (p *Plan) refuseOthers(remote map[Port]bool) error {
	for _, c := range running(p.Pod.Spec) {
		for _, cp := range c.Ports {
			if c.Name == p.Container || !remote[Port(cp.ContainerPort)] || cp.Protocol != "" && cp.Protocol != corev1.ProtocolTCP {
				continue
			}
			no := &Refusal{
				Reason: fmt.Sprintf("the pod's port %d is container %s's, which stays", cp.ContainerPort, c.Name),
				Fix:    fmt.Sprintf("swap that container instead: --swap-deployment %s:%s", p.Target.Flag(), c.Name),
			}
			if p.Operation != Swap || isSidecar(c) {
				no.Fix = "take another port of the pod's"
			}
			return no
		}
	}
	return nil
}

// running are the containers that run together: the sidecars among the init
// containers too.
func running(spec corev1.PodSpec) []corev1.Container {
	list := slices.Clone(spec.Containers)
	for _, c := range spec.InitContainers {
		if isSidecar(c) {
			list = append(list, c)
		}
	}
	return list
}

// isSidecar tells whether an init container goes on beside the others
// (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/).
func isSidecar(c corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// agentPort is where the agent listens, on the pod's loopback: by the session,
// so that two proxies in one node's network namespace differ, and none that the
// pod is known to use.
func agentPort(r Request, spec corev1.PodSpec, ports []Expose) Port {
	taken := make(map[Port]bool)
	for _, e := range ports {
		taken[e.Remote] = true
	}
	for _, port := range slices.Concat(r.ToPod, r.FromPod) {
		taken[port] = true
	}
	for _, c := range slices.Concat(spec.Containers, spec.InitContainers) {
		for _, cp := range c.Ports {
			taken[Port(cp.ContainerPort)] = true
		}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(r.Session))
	const span = lastAgentPort - firstAgentPort + 1
	for i := range uint32(span) {
		if port := Port(firstAgentPort + (h.Sum32()+i)%span); !taken[port] {
			return port
		}
	}
	return firstAgentPort
}
