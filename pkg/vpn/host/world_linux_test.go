package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// driverRole makes this test's binary a session: it sets the machine up, and puts
// it back when its input ends. Its helper, this binary again, stops at a step.
const driverRole = "test-driver"

// The environment of a driver and its helper.
const (
	stopAt  = "TELEPRESENCE_TEST_STOP_AT"  // the step
	stopDir = "TELEPRESENCE_TEST_STOP_DIR" // has the file "there" when it is reached, and "on" to go on
	inWorld = "TELEPRESENCE_TEST_WORLD"    // set where the test has a machine of its own
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Role:
			os.Exit(help(os.Args[2:], &machine{stops: stop}))
		case driverRole:
			os.Exit(drive())
		}
	}
	os.Exit(m.Run())
}

// stop waits at the step that is asked for.
func stop(step string) {
	if step != os.Getenv(stopAt) {
		return
	}
	there, on := filepath.Join(os.Getenv(stopDir), "there"), filepath.Join(os.Getenv(stopDir), "on")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		os.Exit(1)
	}
	for range time.Tick(time.Millisecond) {
		if _, err := os.Stat(on); err == nil {
			return
		}
	}
}

// cluster is what the drivers' sessions lead to their device: a pin is among it.
var cluster = Config{
	Routes:  []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:1::/64")},
	Keep:    []netip.Addr{netip.MustParseAddr("10.96.0.1")},
	Domains: []string{"cluster.local"},
	Search:  []string{"shop.svc.cluster.local"},
	Tell:    func(line string) { fmt.Fprintln(os.Stderr, "T:", line) },
}

func drive() int {
	ctx, done := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer done()
	cfg := cluster
	cfg.Stdin, cfg.Stderr = os.Stdin, os.Stderr
	h, err := Start(ctx, cfg)
	if err == nil {
		fmt.Fprintln(os.Stdout, "up")
		for lines := bufio.NewScanner(os.Stdin); lines.Scan() && lines.Text() != "end"; {
			fmt.Fprintln(os.Stdout, "got", lines.Text())
		}
		err = h.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// alone runs the calling test again on a machine of its own, in namespaces, and
// returns true there.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inWorld) != "" {
		makeWorld(t)
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make a world for the test")
	}
	probe, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no TUN device to be had: %v", err)
	}
	_ = probe.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	// The race detector waits for a second at each process's end, unless it is told.
	cmd.Env = append(os.Environ(), inWorld+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in its world: %v", err)
	}
	return false
}

// makeWorld gives the namespaces a way out by default, an /etc and a /run of
// their own, and the processes that are in them.
func makeWorld(t *testing.T) {
	t.Helper()
	etc := t.TempDir()
	t.Cleanup(func() { _ = unix.Unmount(etc, unix.MNT_DETACH) })
	for _, err := range []error{
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		unix.Mount("tmpfs", etc, "tmpfs", 0, "mode=755"),
		unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
		os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte(machinesOwn), 0o640),
		unix.Mount(etc, "/etc", "", unix.MS_BIND, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// What those leave there who are killed goes with the world.
	t.Setenv("TMPDIR", "/run")
	out, err := tun.OpenFile("out%d", tun.DefaultMTU)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	link, err := netlink.LinkByName("out0")
	if err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	own, gateway := netip.MustParsePrefix("192.0.2.2/24"), netip.MustParseAddr("192.0.2.1")
	if err := errors.Join(
		// Else the kernel gives it an address, some time.
		os.WriteFile("/proc/sys/net/ipv6/conf/out0/disable_ipv6", []byte("1"), 0o600),
		netlink.LinkSetUp(lo),
		netlink.LinkSetUp(link),
		netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(own)}),
		netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}),
	); err != nil {
		t.Fatal(err)
	}
}

// state is what a session must leave as it is: links, addresses and routes, what
// is in /etc and where mounted, and the namespaces that there are.
func state(t *testing.T) string {
	t.Helper()
	var lines []string
	add := func(what ...any) { lines = append(lines, fmt.Sprintln(what...)) }
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		add("link", l.Attrs().Name, l.Attrs().MTU, l.Attrs().Flags)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		add("address", a.IPNet, linkName(a.LinkIndex))
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		add("route", r.Dst, r.Gw, linkName(r.LinkIndex), r.Table, r.Protocol)
	}
	for _, pattern := range []string{"/etc/*", "/proc/[1-9]*/ns/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			if ns, err := os.Readlink(path); err == nil {
				add("namespace", ns)
			} else if at, err := os.Lstat(path); err == nil && at.Mode().IsRegular() {
				add("file", path, at.Mode(), read(t, path))
			}
		}
	}
	for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
		// Others' below /tmp go when they remove their folders.
		if fields := strings.Fields(line); !strings.HasPrefix(fields[4], "/tmp/") {
			add("mount", fields[0], fields[3:6])
		}
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "")
}

// sameState compares the state with what it was before.
func sameState(t *testing.T, before string) {
	t.Helper()
	now := state(t)
	for sign, texts := range map[string][2]string{"-": {before, now}, "+": {now, before}} {
		for line := range strings.Lines(texts[0]) {
			if !strings.Contains(texts[1], line) {
				t.Error("the machine has changed:", sign, line)
			}
		}
	}
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// processes are those of this world that have not ended, with their arguments.
func processes(t *testing.T) map[string]string {
	t.Helper()
	found, err := filepath.Glob("/proc/[1-9]*")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, dir := range found {
		if words, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(words) > 0 {
			all[filepath.Base(dir)] = strings.ReplaceAll(string(words), "\x00", " ")
		}
	}
	return all
}
