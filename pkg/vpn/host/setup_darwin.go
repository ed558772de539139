package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// This file is compiled and vetted, and has never been run: there was no such
// machine to try it on.

// resolverDir holds a file for each domain that is asked for elsewhere
// (resolver(5)).
const resolverDir = "/etc/resolver"

// setUp makes the device and leads the cluster's addresses and names to it. What
// it has done when it fails, undo undoes. The routes go with the device.
func (m *machine) setUp(cfg Config) (answer, *os.File, error) {
	has, err := routes()
	if err != nil {
		return answer{}, nil, err
	}
	notes, err := collide(cfg.Routes, has)
	if err != nil {
		return answer{}, nil, err
	}
	own, dns, err := freeAddresses(has)
	if err != nil {
		return answer{}, nil, err
	}
	if err := m.startGuard(cfg); err != nil { // only now: until here, what there is may be another session's
		return answer{}, nil, err
	}
	device, err := tun.OpenFile("utun", tun.DefaultMTU)
	if err != nil {
		return answer{}, nil, err
	}
	name, err := tun.Name(device)
	if err == nil {
		err = command("/sbin/ifconfig", name, "inet", own.String(), dns.String(), "up")
	}
	for _, r := range cfg.Routes {
		if err != nil {
			break
		}
		family := "-inet"
		if r.Addr().Is6() {
			family = "-inet6"
		}
		err = command("/sbin/route", "-n", "add", family, "-net", r.String(), "-interface", name)
	}
	if err == nil {
		err = m.writeResolvers(dns, cfg)
	}
	if err != nil {
		return answer{}, nil, errors.Join(err, device.Close())
	}
	return answer{Notes: notes, DNSAddr: dns}, device, nil
}

// mark begins a file of ours.
const mark = "# Written by telepresence for a session"

// repair undoes what a helper with that config has left.
func repair(cfg Config) error {
	var errs []error
	for _, d := range cfg.Domains {
		path := filepath.Join(resolverDir, d)
		if text, err := os.ReadFile(path); err == nil && bytes.HasPrefix(text, []byte(mark)) {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

// clearAway does nothing here: whose files there are can't be told.
func clearAway() error { return nil }

// writeResolvers makes a file for each of the cluster's domains, unless there is
// one.
func (m *machine) writeResolvers(dns netip.Addr, cfg Config) error {
	if err := os.MkdirAll(resolverDir, 0o755); err != nil { //nolint:gosec // as the system has it
		return fmt.Errorf("making %s: %w", resolverDir, err)
	}
	for _, d := range cfg.Domains {
		path := filepath.Join(resolverDir, d)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // everybody reads it
		if errors.Is(err, fs.ErrExist) {
			return &Error{Problem: path + " is there already: another session, or another tool, has the cluster's names", Way: "remove it if it is left over"}
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		m.did(func() error { return os.Remove(path) })
		_, err = fmt.Fprintf(f, "%s\nnameserver %s\n", mark, dns)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return nil
}

// routes are the machine's own, as netstat prints them.
func routes() ([]route, error) {
	text, err := exec.Command("/usr/sbin/netstat", "-rn").Output() //nolint:noctx // it only reads a table
	if err != nil {
		return nil, fmt.Errorf("reading this machine's routes: %w", err)
	}
	var list []route
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		if to, err := netip.ParsePrefix(fields[0]); err == nil {
			list = append(list, route{to: to, device: fields[3]})
		}
	}
	return list, nil
}

// command runs one of the system's own programs.
func command(name string, args ...string) error {
	text, err := exec.Command(name, args...).CombinedOutput() //nolint:noctx // these end by themselves
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(text))
	}
	return nil
}
