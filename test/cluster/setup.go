package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// debianPackage is a package of the distribution, and the program by which it is
// known to be there.
type debianPackage struct{ name, program string }

// packages are the distribution's packages that a cluster and the tests need.
var packages = []debianPackage{
	{"containerd", "containerd"}, {"runc", "runc"}, {"containernetworking-plugins", "/usr/lib/cni/bridge"},
	{"iptables", "iptables"}, {"conntrack", "conntrack"}, {"etcd-server", "etcd"}, {"iproute2", "ip"},
	{"util-linux", "nsenter"}, {"mount", "mount"}, {"procps", "pkill"},
	// Of the tests alone: an engine for --docker-run, FUSE for the pod's files,
	// clients that are not written in Go, a way into a network namespace, and what
	// the helper of vpn-tcp works with on a user's machine.
	{"docker.io", "dockerd"}, {"fuse3", "fusermount3"}, {"curl", "curl"}, {"socat", "socat"}, {"python3", "python3"},
	{"sudo", "sudo"}, {"dbus-daemon", "dbus-daemon"},
}

// wished are packages without which a script leaves a part out, and says so.
var wished = []debianPackage{{"zsh", "zsh"}, {"fish", "fish"}}

// missing are those of the packages whose program is not there.
func missing(packages []debianPackage) []string {
	var names []string
	for _, p := range packages {
		if _, err := exec.LookPath(p.program); err != nil {
			names = append(names, p.name)
		}
	}
	return names
}

func checkPrograms() error {
	if names := missing(packages); len(names) > 0 {
		return fmt.Errorf("missing packages: %s; run cluster setup", strings.Join(names, ", "))
	}
	return nil
}

// setup installs the packages that are missing and builds the components that
// are not in the cache. It is quick when there is nothing to do.
func (c *cluster) setup(ctx context.Context) error {
	if names := missing(packages); len(names) > 0 {
		say("installing %s", strings.Join(names, " "))
		if err := install(ctx, names); err != nil {
			return err
		}
	}
	if names := missing(wished); len(names) > 0 {
		say("installing %s", strings.Join(names, " "))
		if err := install(ctx, names); err != nil {
			say("going on without %s: %v", strings.Join(names, " "), err)
		}
	}
	return c.build(ctx)
}

// install installs packages of Debian or Ubuntu, as root or through sudo.
func install(ctx context.Context, names []string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this is no Debian or Ubuntu: install %s by other means", strings.Join(names, ", "))
	}
	for _, args := range [][]string{
		{"apt-get", "update", "--quiet=2"},
		append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends"}, names...),
	} {
		if os.Geteuid() != 0 {
			args = append([]string{"sudo"}, args...)
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("running %s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}
