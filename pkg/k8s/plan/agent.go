package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// leastMemory is what the agent needs to live. It is made anew each time: a
// Quantity that is printed writes into itself.
func leastMemory() resource.Quantity { return resource.MustParse("16Mi") }

// nobody is the user whom the agent runs as where it may not be root and nothing
// says who it is: its image names no user.
const nobody = 65534

// asAgent turns one container into the agent's. What belongs to the original
// program goes: its command, its probes, its hooks. What the pod gives it stays:
// environment, ports, mounts, resources, security context.
func (p *Plan) asAgent(c *corev1.Container, r Request) {
	c.Image, c.ImagePullPolicy = r.AgentImage, corev1.PullIfNotPresent
	port := fmt.Sprintf("--port=%d", p.AgentPort)
	c.Command = []string{"/telepresence-agent", "serve", port, "--grace=" + r.Grace.String()}
	c.Args, c.WorkingDir, c.Lifecycle = nil, "", nil
	c.LivenessProbe, c.StartupProbe = nil, nil
	c.Stdin, c.StdinOnce, c.TTY = false, false, false
	c.RestartPolicy, c.RestartPolicyRules = nil, nil
	c.ReadinessProbe = &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/telepresence-agent", "ready", port}}},
		PeriodSeconds:    1,
		TimeoutSeconds:   5,
		FailureThreshold: 3,
	}
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: sessionVolume, MountPath: SessionDir, ReadOnly: true})
}

// giveMemory raises a memory limit under which the agent would not live, its own
// or the namespace's default. A request that was the limit goes along: the pod's
// quality of service depends on it.
func (p *Plan) giveMemory(c *corev1.Container, ranges []corev1.LimitRange) error {
	needed := leastMemory()
	if least := maxOf(ranges, corev1.ResourceMemory); least != nil && least.Cmp(needed) < 0 {
		return &Refusal{
			Reason: fmt.Sprintf("a container in namespace %s may use %s of memory at most, and the proxy needs %s", p.Namespace, least, &needed),
			Fix:    "raise the maximum of the namespace's limit range",
		}
	}
	if all := p.Pod.Spec.Resources; all != nil {
		if limit, ok := all.Limits[corev1.ResourceMemory]; ok && limit.Cmp(needed) < 0 {
			return &Refusal{Reason: fmt.Sprintf("the pod may use %s of memory, and the proxy alone needs %s", &limit, &needed)}
		}
	}
	limit, ok := limited(*c, corev1.ResourceMemory, ranges)
	if !ok || limit.Cmp(needed) >= 0 {
		return nil
	}
	if request, ok := c.Resources.Requests[corev1.ResourceMemory]; ok && request.Cmp(limit) == 0 {
		c.Resources.Requests = maps.Clone(c.Resources.Requests)
		c.Resources.Requests[corev1.ResourceMemory] = needed
	}
	limits := make(corev1.ResourceList, len(c.Resources.Limits)+1)
	maps.Copy(limits, c.Resources.Limits)
	limits[corev1.ResourceMemory] = needed
	c.Resources.Limits = limits
	p.warnf("container %s may use %s of memory: the proxy needs %s, and gets it", c.Name, &limit, &needed)
	return nil
}

// maxOf is the most of a resource that a container may have in the namespace, or
// nil.
func maxOf(ranges []corev1.LimitRange, name corev1.ResourceName) *resource.Quantity {
	var least *resource.Quantity
	for _, r := range ranges {
		for _, item := range r.Spec.Limits {
			q, ok := item.Max[name]
			if ok && item.Type == corev1.LimitTypeContainer && (least == nil || q.Cmp(*least) < 0) {
				least = &q
			}
		}
	}
	return least
}

// chooseUser names a user where the pod must not run as root and only the
// original's image said who it is. Where admission has named one for the
// originals, as OpenShift does, it will name one for the proxy.
func (p *Plan) chooseUser(c *corev1.Container, originals []corev1.Pod) {
	user, nonRoot := runsAs(p.Pod.Spec, *c)
	if user != nil || nonRoot == nil || !*nonRoot {
		return
	}
	for _, pod := range originals {
		for _, original := range pod.Spec.Containers {
			if named, _ := runsAs(pod.Spec, original); original.Name == c.Name && named != nil {
				return
			}
		}
	}
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{}
	}
	c.SecurityContext.RunAsUser = new(int64(nobody))
}

// runsAs is what a container's security context, or else its pod's, says of the
// user.
func runsAs(spec corev1.PodSpec, c corev1.Container) (user *int64, nonRoot *bool) {
	if sc := spec.SecurityContext; sc != nil {
		user, nonRoot = sc.RunAsUser, sc.RunAsNonRoot
	}
	if sc := c.SecurityContext; sc != nil {
		if sc.RunAsUser != nil {
			user = sc.RunAsUser
		}
		if sc.RunAsNonRoot != nil {
			nonRoot = sc.RunAsNonRoot
		}
	}
	return user, nonRoot
}

// lowPorts is the sysctl that says from which port on anyone may listen. It is
// one of the safe ones, and the pod's own
// (https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/).
const lowPorts = "net.ipv4.ip_unprivileged_port_start"

// allowLowPorts lets the agent, which needs no capability, listen on port 80. A
// pod in the node's network can't have a sysctl of its own: it must be root
// there.
func (p *Plan) allowLowPorts(c *corev1.Container, r Request) error {
	var ports []Port
	for _, e := range p.Ports {
		ports = append(ports, e.Remote)
	}
	ports = append(ports, r.FromPod...)
	if len(ports) == 0 || slices.Min(ports) >= 1024 {
		return nil
	}
	spec, lowest := &p.Pod.Spec, slices.Min(ports)
	if spec.HostNetwork {
		if user, _ := runsAs(*spec, *c); user != nil && *user != 0 {
			return &Refusal{
				Reason: fmt.Sprintf("the pod uses its node's network, where user %d may not listen on port %d", *user, lowest),
				Fix:    "ports from 1024 on work, and so does a pod without hostNetwork",
			}
		}
		return nil
	}
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	set := corev1.Sysctl{Name: lowPorts, Value: "0"}
	sysctls := spec.SecurityContext.Sysctls
	i := slices.IndexFunc(sysctls, func(s corev1.Sysctl) bool { return s.Name == lowPorts })
	if i < 0 {
		spec.SecurityContext.Sysctls = append(sysctls, set)
	} else if from, err := strconv.Atoi(sysctls[i].Value); err != nil || from > int(lowest) {
		sysctls[i] = set
	}
	return nil
}
