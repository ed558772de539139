package host

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var testDNS = netip.MustParseAddr("198.19.64.2")

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const machinesOwn = "# by hand\nnameserver 192.0.2.1\nsearch corp.test\noptions edns0 trust-ad\nnameserver 2001:db8::1\n"

func TestReplaceResolvConf(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, path, machinesOwn, 0o640)
	undo, before, err := replaceResolvConf(path, testDNS, []string{"shop.svc.cluster.local", "svc.cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}; !slices.Equal(before, want) {
		t.Errorf("before it were %v, want %v", before, want)
	}
	want := mark + path + aside + "\nnameserver 198.19.64.2\noptions edns0 trust-ad\nsearch shop.svc.cluster.local svc.cluster.local corp.test\n"
	if got := read(t, path); got != want {
		t.Errorf("it is\n%s\nwant\n%s", got, want)
	}
	for range 2 {
		if err := undo(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != machinesOwn {
			t.Errorf("brought back is\n%s", got)
		}
	}
	if at, err := os.Stat(path); err != nil || at.Mode() != 0o640 {
		t.Errorf("its mode is %v, %v", at.Mode(), err)
	}
}

func TestReplaceLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, target := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "stub.conf")
	write(t, target, machinesOwn, 0o644)
	if err := os.Symlink("stub.conf", path); err != nil {
		t.Fatal(err)
	}
	undo, _, err := replaceResolvConf(path, testDNS, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, target); got != machinesOwn {
		t.Errorf("what the link leads to was changed to\n%s", got)
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(path); err != nil || to != "stub.conf" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
}

func TestReplaceNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	undo, before, err := replaceResolvConf(path, testDNS, nil)
	if err != nil || len(before) != 0 {
		t.Fatalf("%v, %v", before, err)
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// A session that was killed, helper and all, is put right by the next.
func TestRepair(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, path, machinesOwn, 0o644)
	if _, _, err := replaceResolvConf(path, testDNS, nil); err != nil {
		t.Fatal(err)
	}
	if err := repairResolvConf(path); err != nil || read(t, path) != machinesOwn {
		t.Errorf("repaired it is\n%s, %v", read(t, path), err)
	}

	// Unless the machine has got another since.
	if _, _, err := replaceResolvConf(path, testDNS, nil); err != nil {
		t.Fatal(err)
	}
	write(t, path, "nameserver 192.0.2.9\n", 0o644)
	if err := repairResolvConf(path); err != nil || read(t, path) != "nameserver 192.0.2.9\n" {
		t.Errorf("repaired it is\n%s, %v", read(t, path), err)
	}
	if _, err := os.Lstat(path + aside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// Whatever a resolv.conf holds, ours has one nameserver, and every line of it one
// meaning.
func FuzzOurResolvConf(f *testing.F) {
	f.Add(machinesOwn)
	f.Add("search\noptions\nsearch a b\r\ndomain \x00")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		write(t, path, string(ourResolvConf(path, []byte(text), testDNS, []string{"cluster.local"})), 0o644)
		got, err := readResolvConf(path)
		if err != nil || !slices.Equal(got, []netip.Addr{testDNS}) {
			t.Errorf("of %q ours has nameservers %v, %v", text, got, err)
		}
	})
}
