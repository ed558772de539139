package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/doctor"
)

const (
	tunPath   = "/dev/net/tun"
	meanwhile = "meanwhile: --method vpn-tcp works without it, and so does inject-tcp as root"
)

// Checks are what a sandbox needs of this machine.
func Checks() []doctor.Check {
	return []doctor.Check{
		{
			Name: "namespaces without root (inject-tcp)",
			Run: func(ctx context.Context) (string, error) {
				if mayMakeNamespaces() {
					return "running as root", nil
				}
				return "", tryNamespaces(ctx)
			},
		},
		{
			Name: "TUN device (inject-tcp)",
			Run:  func(context.Context) (string, error) { return tunPath, deviceAllowed() },
		},
	}
}

// tryNamespaces makes namespaces, and lets them go.
func tryNamespaces(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", Role, probe)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	intoNamespaces(cmd.SysProcAttr, true)
	if err := cmd.Run(); err != nil {
		return explainNamespaces(err)
	}
	return nil
}

// mayMakeNamespaces says whether this process needs no user namespace.
func mayMakeNamespaces() bool {
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return os.Geteuid() == 0 && ownCaps()&needed == needed
}

// ownCaps are the capabilities of this process, a bit each.
func ownCaps() uint64 {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return 0
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
}

// deviceAllowed says whether /dev/net/tun can be opened.
func deviceAllowed() error {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		return unix.Close(fd)
	}
	e := &Error{Op: "opening " + tunPath, Err: err}
	switch {
	case inContainer():
		e.hint = "start the container with --device /dev/net/tun --cap-add NET_ADMIN --cap-add SYS_ADMIN\n" + meanwhile
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		e.hint = "sudo modprobe tun; if that is no module here, the kernel has no TUN device\n" +
			"without one, --docker-run works where the engine's machine has it"
	default:
		e.hint = "sudo chmod 0666 /dev/net/tun; to keep it so:\n" +
			`echo 'KERNEL=="tun", MODE="0666"' | sudo tee /etc/udev/rules.d/99-tun.rules` + "\n" + meanwhile
	}
	return e
}

// explainNamespaces says why the namespaces can't be made.
func explainNamespaces(err error) error {
	return &Error{Op: "making namespaces for the process", Err: cause(err), hint: namespaceHint(err, readSetting, inContainer(), seccomp())}
}

// explainSetUp says why a sandbox whose namespaces were made can't be set up.
func explainSetUp(err error) error {
	e := &Error{Op: "setting up the sandbox", Err: err}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		e.hint = namespaceHint(err, readSetting, inContainer(), seccomp())
	}
	return e
}

// cause is the errno in an error, without the words around it.
func cause(err error) error {
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

// namespaceHint finds out which of the things that forbid namespaces does.
// setting reads a file under /proc/sys, and gives "" if there is none.
func namespaceHint(err error, setting func(string) string, container, seccomp bool) string {
	var hint string
	switch {
	case container:
		hint = "this is a container, which may not make namespaces: start it with\n" +
			"--cap-add SYS_ADMIN --cap-add NET_ADMIN --device /dev/net/tun --security-opt apparmor=unconfined --security-opt seccomp=unconfined"
	case setting("user/max_user_namespaces") == "0":
		hint = "user namespaces are switched off: sudo sysctl -w user.max_user_namespaces=15000; to keep it so:\n" +
			"echo user.max_user_namespaces=15000 | sudo tee /etc/sysctl.d/99-userns.conf"
	case setting("kernel/unprivileged_userns_clone") == "0":
		hint = "user namespaces are for root only: sudo sysctl -w kernel.unprivileged_userns_clone=1; to keep it so:\n" +
			"echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/99-userns.conf"
	case setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
		hint = apparmorHint()
	case errors.Is(err, unix.ENOSPC):
		hint = "too many namespaces: sudo sysctl -w user.max_user_namespaces=15000 user.max_net_namespaces=15000 user.max_mnt_namespaces=15000"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		hint = "this kernel has no user namespaces (CONFIG_USER_NS)"
	case seccomp:
		hint = "a seccomp filter forbids namespaces to this process: start telepresence outside of it (a plain terminal rather than a snap, flatpak or service)"
	default:
		hint = "this machine forbids user namespaces to ordinary users: ask its administrator"
	}
	return hint + "\n" + meanwhile
}

// apparmorHint lets this program alone make user namespaces.
func apparmorHint() string {
	exe, err := os.Executable()
	if err != nil {
		exe = "/usr/local/bin/telepresence"
	}
	return fmt.Sprintf(`AppArmor keeps user namespaces from programs it doesn't know. To let telepresence have them:
printf 'abi <abi/4.0>,\ninclude <tunables/global>\nprofile telepresence %s flags=(unconfined) {\n  userns,\n}\n' | sudo tee /etc/apparmor.d/telepresence
sudo apparmor_parser -r /etc/apparmor.d/telepresence
or, for every program: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, exe)
}

func readSetting(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// inContainer says whether this process runs in a container, by what engines
// leave in one.
func inContainer() bool {
	for _, path := range []string{"/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io/serviceaccount/namespace"} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return os.Getenv("container") != "" // set by podman, LXC and systemd-nspawn
}

// seccomp says whether a seccomp filter is on this process.
func seccomp() bool {
	b, err := os.ReadFile("/proc/self/status")
	return err == nil && strings.Contains(string(b), "\nSeccomp:\t2\n")
}
