package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// patience is how long any one part may take to come up: far more than it
// needs on a machine that has nothing else to do.
const patience = 4 * time.Minute

// start starts what of the cluster does not run: the control plane, the nodes
// up to the wanted number, and those that were killed.
func (c *cluster) start(ctx context.Context, wanted int) error {
	if wanted < 1 || wanted > maxNodes {
		return fmt.Errorf("%d nodes are not possible: 1 to %d are", wanted, maxNodes)
	}
	if err := checkPrograms(); err != nil {
		return err
	}
	if c.pid(control) == 0 {
		if err := c.clear(); err != nil { // what a crash or a reboot has left
			return err
		}
		if err := c.prepare(); err != nil {
			return err
		}
		if err := c.startControl(ctx); err != nil {
			return err
		}
	}
	numbers, err := c.nodes()
	if err != nil {
		return err
	}
	for number := 1; number <= wanted; number++ {
		numbers = append(numbers, number)
	}
	return c.startNodes(ctx, numbers)
}

// add starts one node more.
func (c *cluster) add(ctx context.Context) error {
	numbers, err := c.nodes()
	if err != nil {
		return err
	}
	next := 1
	for _, number := range numbers {
		next = max(next, number+1)
	}
	if next > maxNodes {
		return fmt.Errorf("%d nodes are all that is possible", maxNodes)
	}
	return c.startNodes(ctx, []int{next})
}

// startNodes starts those of the nodes that do not run and waits until pods
// can run on all of them.
func (c *cluster) startNodes(ctx context.Context, numbers []int) error {
	n, err := c.network()
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if c.pid(fmt.Sprintf("node%d", number)) != 0 {
			continue
		}
		if err := c.startNode(ctx, n, number); err != nil {
			return err
		}
	}
	if err := n.routePods(c.nodePIDs(), c.pid(control)); err != nil {
		return err
	}
	if err := c.apply(ctx, fmt.Sprintf(dnsObjects, n.dns(), imageName("coredns"), n.host())); err != nil {
		return err
	}
	for _, number := range numbers {
		if err := c.waitNode(ctx, fmt.Sprintf("node%d", number)); err != nil {
			return err
		}
	}
	say("%d node(s) ready; KUBECONFIG=%s", len(c.nodePIDs()), c.path("admin.kubeconfig"))
	return nil
}

// waitNode waits until a node takes pods and its DNS server answers.
func (c *cluster) waitNode(ctx context.Context, name string) error {
	return c.eventually(ctx, name, func() error {
		if err := c.kubectl(ctx, "", "wait", "--for=condition=Ready", "--timeout=5s", "node/"+name); err != nil {
			return err
		}
		return c.kubectl(ctx, "", "--namespace=kube-system", "wait", "--for=condition=Ready", "--timeout=5s",
			"pod", "--selector=k8s-app=kube-dns", "--field-selector=spec.nodeName="+name)
	})
}

// nodePIDs are the first processes of the nodes that run, by node number.
func (c *cluster) nodePIDs() map[int]int {
	pids := make(map[int]int)
	numbers, err := c.nodes()
	if err != nil {
		return pids
	}
	for _, number := range numbers {
		if pid := c.pid(fmt.Sprintf("node%d", number)); pid != 0 {
			pids[number] = pid
		}
	}
	return pids
}

// kill ends a node as a power cut would. The cluster does not know of it until
// it misses the node.
func (c *cluster) kill(name string) error {
	if nodeNumber(name) == 0 || c.pid(name) == 0 {
		return fmt.Errorf("no node %q runs", name)
	}
	return c.powerOff(name)
}

// stop ends the cluster and removes its folder.
func (c *cluster) stop(context.Context) error {
	if err := c.clear(); err != nil {
		return err
	}
	// The lock goes last, and whoever waits for it sees that it went.
	return errors.Join(os.Remove(c.path("lock")), os.Remove(c.dir))
}

// clear ends every machine and removes all but the lock, which is held.
func (c *cluster) clear() error {
	numbers, err := c.nodes()
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if err := c.powerOff(fmt.Sprintf("node%d", number)); err != nil {
			return err
		}
	}
	if err := c.powerOff(control); err != nil {
		return err
	}
	if n, err := c.network(); err == nil {
		if err := awaitInterfaceGone(n.hostInterface()); err != nil {
			return err
		}
		if err := removeCgroups(filepath.Join(n.hostInterface(), ".")); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == "lock" {
			continue
		}
		if err := os.RemoveAll(c.path(entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// awaitInterfaceGone waits for the kernel to clear a network namespace away.
func awaitInterfaceGone(name string) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat("/sys/class/net/" + name); os.IsNotExist(err) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("interface %s does not go", name)
		}
	}
}

// prepare fills the folder with what does not depend on the network.
func (c *cluster) prepare() error {
	binaries, err := c.binaries()
	if err != nil {
		return err
	}
	for _, name := range []string{"pause.tar", "coredns.tar"} {
		if err := c.keepImage(filepath.Join(binaries, name)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.path("bin"), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(binaries, "kubectl"), c.path("bin", "kubectl")); err != nil {
		return err
	}
	script := fmt.Sprintf(ctrScript, c.dir, filepath.Join(c.source, "cluster"))
	return os.WriteFile(c.path("bin", "ctr"), []byte(script), 0o755)
}

const ctrScript = `#!/bin/sh
# ctr NODE ARGUMENT…: containerd's command on one of the nodes.
node=$1
shift
CLUSTER_STATE='%s' exec '%s' exec "$node" ctr --namespace k8s.io "$@"
`
