package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// startNode starts the machine of node number, with containerd, kubelet and
// kube-proxy, and gives it the images. A node that was killed starts empty.
func (c *cluster) startNode(ctx context.Context, n network, number int) error {
	name := fmt.Sprintf("node%d", number)
	if err := c.powerOff(name); err != nil {
		return err
	}
	if err := os.RemoveAll(c.path(name)); err != nil {
		return err
	}
	// The node's object comes first, so that we and not a controller say which pods' addresses are its own.
	if err := c.apply(ctx, fmt.Sprintf(nodeObject, name, n.pods(number))); err != nil {
		return err
	}
	err := c.boot(name, func(pid int) (machine, error) {
		if err := n.connectNode(c.pid(control), pid, number); err != nil {
			return machine{}, err
		}
		if err := enterCgroup(filepath.Join(n.hostInterface(), name), pid); err != nil {
			return machine{}, err
		}
		if err := c.writeNodeFiles(n, name, number); err != nil {
			return machine{}, err
		}
		return c.nodeMachine(n, name, number)
	})
	if err != nil {
		return err
	}
	if err := c.eventually(ctx, name+"'s containerd", func() error {
		return command("nsenter", append(inside(c.pid(name)), "ctr", "version")...)
	}); err != nil {
		return err
	}
	tars, err := filepath.Glob(c.path("images", "*.tar"))
	if err != nil {
		return err
	}
	for _, tar := range tars {
		if err := c.importImage(ctx, name, tar); err != nil {
			return err
		}
	}
	say("%s started", name)
	return nil
}

const nodeObject = `
apiVersion: v1
kind: Node
metadata:
  name: %[1]s
  labels:
    kubernetes.io/hostname: %[1]s
spec:
  podCIDR: %[2]s
  podCIDRs: [%[2]s]
`

// writeNodeFiles writes a node's keys and configurations.
func (c *cluster) writeNodeFiles(n network, name string, number int) error {
	a, err := c.authority()
	if err != nil {
		return err
	}
	serving, err := a.issue(subject{name: name, addresses: []string{n.node(number).String()}, hosts: []string{name}})
	if err != nil {
		return err
	}
	kubelet, err := a.kubeconfig(n, subject{name: "system:node:" + name, groups: []string{"system:nodes"}}, "default")
	if err != nil {
		return err
	}
	proxy, err := a.kubeconfig(n, subject{name: "system:kube-proxy"}, "default")
	if err != nil {
		return err
	}
	for file, text := range map[string]string{
		"ca.crt": a.pem(), "kubelet.crt": serving.certificate, "kubelet.key": serving.key,
		"kubelet.kubeconfig": kubelet, "kube-proxy.kubeconfig": proxy,
		"kubelet.yaml":            fmt.Sprintf(kubeletConfig, n.dns()),
		"containerd.toml":         fmt.Sprintf(containerdConfig, imageName("pause"), snapshotter(c.dir), pluginFolder()),
		"resolv.conf":             fmt.Sprintf("nameserver %s\n", n.dns()),
		"cni/10-cluster.conflist": fmt.Sprintf(cniConfig, n.pods(number)),
	} {
		if err := c.write(text, name, "lib", "node", file); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) nodeMachine(n network, name string, number int) (machine, error) {
	binaries, err := c.binaries()
	if err != nil {
		return machine{}, err
	}
	return machine{
		Hostname: name,
		Binds: []bind{
			{Source: binaries, Target: "/run/bin"},
			{Source: c.path(name, "lib"), Target: "/var/lib"}, {Source: c.path(name, "log"), Target: "/var/log"},
		},
		Sysctls: map[string]string{"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"},
		// What a kubelet would set for the whole of the host.
		Pretend: map[string]string{
			"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
			"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
		},
		Programs: []program{
			{Name: "containerd", Argv: split("/usr/bin/containerd --config /var/lib/node/containerd.toml")},
			{Name: "kubelet", Argv: split(fmt.Sprintf(`/run/bin/kubelet --config=/var/lib/node/kubelet.yaml
				--kubeconfig=/var/lib/node/kubelet.kubeconfig --hostname-override=%s --node-ip=%s`, name, n.node(number)))},
			{Name: "kube-proxy", Argv: split(fmt.Sprintf(`/run/bin/kube-proxy --kubeconfig=/var/lib/node/kube-proxy.kubeconfig
				--hostname-override=%s --cluster-cidr=%s --conntrack-max-per-core=0`, name, n.allPods()))},
		},
	}, nil
}

// snapshotter is overlayfs but where the state folder is on one itself, as in
// a container: overlays can't be stacked so.
func snapshotter(dir string) string {
	const overlayfs = 0x794c7630
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err == nil && fs.Type == overlayfs {
		return "native"
	}
	return "overlayfs"
}

// pluginFolder is where the distribution has the CNI plugins.
func pluginFolder() string {
	for _, dir := range []string{"/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			return dir
		}
	}
	return "/usr/lib/cni"
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: /var/lib/node/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: /var/lib/node/kubelet.crt
tlsPrivateKeyFile: /var/lib/node/kubelet.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: /var/lib/kubelet/volume-plugins
clusterDNS: [%s]
clusterDomain: cluster.local
resolvConf: /var/lib/node/resolv.conf
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "0%%", nodefs.available: "0%%", imagefs.available: "0%%"}
serializeImagePulls: false
`

const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = %q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = "/var/lib/node/cni"
`

const cniConfig = `{
  "cniVersion": "0.4.0",
  "name": "cluster",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "/run/cni",
        "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`
