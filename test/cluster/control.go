package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// startControl starts the machine with etcd, API server, controller manager
// and scheduler, and returns when the API server says that it is ready.
func (c *cluster) startControl(ctx context.Context) error {
	var n network
	err := c.boot(control, func(pid int) (machine, error) {
		var err error
		if n, err = claimNetwork(pid); err != nil {
			return machine{}, err
		}
		if err := c.writeNetwork(n); err != nil {
			return machine{}, err
		}
		if err := n.connectControl(pid); err != nil {
			return machine{}, err
		}
		if err := enterCgroup(filepath.Join(n.hostInterface(), control), pid); err != nil {
			return machine{}, err
		}
		if err := c.writeControlFiles(n); err != nil {
			return machine{}, err
		}
		return c.controlMachine(n)
	})
	if err != nil {
		return err
	}
	say("control plane started at %s", n.server())
	return c.eventually(ctx, "the API server", func() error {
		return c.kubectl(ctx, "", "get", "--raw", "/readyz")
	})
}

// writeControlFiles writes keys and kubeconfigs of the control plane.
func (c *cluster) writeControlFiles(n network) error {
	a, err := c.authority()
	if err != nil {
		return err
	}
	files := map[string]string{"ca.crt": a.pem()}
	for name, s := range map[string]subject{
		"apiserver": {
			name: "kube-apiserver", addresses: []string{n.control().String(), n.api().String(), "127.0.0.1"},
			hosts: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"},
		},
		"kubelet-client": {name: "kube-apiserver", groups: []string{"system:masters"}},
		"sa":             {name: "service-accounts"},
	} {
		credential, err := a.issue(s)
		if err != nil {
			return err
		}
		files[name+".crt"], files[name+".key"] = credential.certificate, credential.key
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		if files[name+".kubeconfig"], err = a.kubeconfig(n, subject{name: "system:" + name}, "default"); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := c.write(text, control, "lib", "pki", name); err != nil {
			return err
		}
	}
	admin, err := a.kubeconfig(n, subject{name: "admin", groups: []string{"system:masters"}}, "default")
	if err != nil {
		return err
	}
	if err := c.write(admin, "admin.kubeconfig"); err != nil {
		return err
	}
	return giveBack(c.path("admin.kubeconfig"))
}

func (c *cluster) controlMachine(n network) (machine, error) {
	binaries, err := c.binaries()
	if err != nil {
		return machine{}, err
	}
	pki, err := filepath.Abs(c.path("pki"))
	if err != nil {
		return machine{}, err
	}
	return machine{
		Hostname: control,
		Binds: []bind{
			{Source: binaries, Target: "/run/bin"}, {Source: pki, Target: "/run/authority"},
			{Source: c.path(control, "lib"), Target: "/var/lib"}, {Source: c.path(control, "log"), Target: "/var/log"},
		},
		Programs: []program{etcd(), apiServer(n), controllerManager(n), scheduler()},
	}, nil
}

// etcd keeps its data in memory: a test cluster does not outlive its machine.
func etcd() program {
	return program{Name: "etcd", Argv: split(`/usr/bin/etcd --data-dir=/run/etcd --logger=zap --log-level=warn
		--listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379`)}
}

func apiServer(n network) program {
	return program{Name: "kube-apiserver", Argv: split(fmt.Sprintf(`/run/bin/kube-apiserver
		--etcd-servers=http://127.0.0.1:2379 --allow-privileged --authorization-mode=Node,RBAC
		--advertise-address=%s --secure-port=6443 --service-cluster-ip-range=%s
		--cert-dir=/run/kubernetes --client-ca-file=/var/lib/pki/ca.crt
		--tls-cert-file=/var/lib/pki/apiserver.crt --tls-private-key-file=/var/lib/pki/apiserver.key
		--enable-admission-plugins=NodeRestriction --kubelet-preferred-address-types=InternalIP
		--kubelet-certificate-authority=/var/lib/pki/ca.crt
		--kubelet-client-certificate=/var/lib/pki/kubelet-client.crt --kubelet-client-key=/var/lib/pki/kubelet-client.key
		--service-account-issuer=https://kubernetes.default.svc.cluster.local
		--service-account-key-file=/var/lib/pki/sa.crt --service-account-signing-key-file=/var/lib/pki/sa.key`,
		n.control(), n.services()))}
}

func controllerManager(n network) program {
	return program{Name: "kube-controller-manager", Argv: split(fmt.Sprintf(`/run/bin/kube-controller-manager
		--kubeconfig=/var/lib/pki/kube-controller-manager.kubeconfig --leader-elect=false --use-service-account-credentials
		--service-account-private-key-file=/var/lib/pki/sa.key --root-ca-file=/var/lib/pki/ca.crt
		--cluster-signing-cert-file=/var/lib/pki/ca.crt --cluster-signing-key-file=/run/authority/ca.key
		--cluster-cidr=%s --allocate-node-cidrs=false --bind-address=127.0.0.1 --cert-dir=/run/kubernetes`, n.allPods()))}
}

func scheduler() program {
	return program{Name: "kube-scheduler", Argv: split(`/run/bin/kube-scheduler
		--kubeconfig=/var/lib/pki/kube-scheduler.kubeconfig --leader-elect=false --bind-address=127.0.0.1 --cert-dir=/run/kubernetes`)}
}

// split cuts a command line at its spaces; none of ours has any in a word.
func split(line string) []string { return strings.Fields(line) }
