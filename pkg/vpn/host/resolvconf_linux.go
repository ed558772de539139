package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// resolvConf is the file that says whom the machine's programs ask for names
// (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// aside is where the machine's own resolv.conf lies meanwhile, beside ours.
const aside = ".before-telepresence"

// fresh is where ours lies until it is whole.
const fresh = ".telepresence"

// mark begins our resolv.conf.
const mark = "# Written by telepresence for a session; the machine's own is in "

// replaceResolvConf puts a file of ours in the place of path, the only nameserver
// in which is dns, and whose search list begins with search. What is there, a file
// or a link, is moved aside as it is, so that undo brings it back byte for byte.
// Where path can't be moved, as in a container, its text is.
func replaceResolvConf(path string, dns netip.Addr, search []string) (undo func() error, before []netip.Addr, err error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	before, err = readResolvConf(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	ours := ourResolvConf(path, text, dns, search)
	// Whole before it gets its name: a killed helper leaves the one or the other.
	if err := os.WriteFile(path+fresh, ours, 0o644); err != nil { //nolint:gosec // everybody reads it
		return nil, nil, fmt.Errorf("writing %s: %w", path, err)
	}
	undo = func() error { return repairResolvConf(path) }
	switch err := os.Rename(path, path+aside); {
	case err == nil, errors.Is(err, fs.ErrNotExist): // there was none: there will be none again
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EXDEV): // a mount point
		return overwriteResolvConf(path, text, ours, before)
	default:
		return nil, nil, errors.Join(fmt.Errorf("moving %s aside: %w", path, err), undo())
	}
	if err := os.Rename(path+fresh, path); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("writing %s: %w", path, err), undo())
	}
	return undo, before, nil
}

// overwriteResolvConf replaces the text of a file that can't be moved.
func overwriteResolvConf(path string, text, ours []byte, before []netip.Addr) (func() error, []netip.Addr, error) {
	err := os.WriteFile(path+aside, text, 0o644) //nolint:gosec // everybody may read what was there
	if err := errors.Join(err, removeIfThere(path+fresh)); err != nil {
		return nil, nil, fmt.Errorf("keeping %s: %w", path, err)
	}
	if err := os.WriteFile(path, ours, 0o644); err != nil { //nolint:gosec // as it is
		return nil, nil, errors.Join(fmt.Errorf("writing %s: %w", path, err), repairResolvConf(path))
	}
	return func() error { return repairResolvConf(path) }, before, nil
}

// repairResolvConf brings back what was moved aside: at a session's end, and for
// the next session where helper and parent were both killed. Idempotent.
//
// An empty file at a mount point is one of ours that was about to be written.
func repairResolvConf(path string) error {
	if err := removeIfThere(path + fresh); err != nil {
		return err
	}
	_, err := os.Lstat(path + aside) // before the look at path: a guard may be doing the same
	none := errors.Is(err, fs.ErrNotExist)
	now, err := os.ReadFile(path)
	ours := err == nil && bytes.HasPrefix(now, []byte(mark))
	switch {
	case none && ours: // there was none before
		return os.Remove(path)
	case none:
		return nil
	case err == nil && !ours && len(now) > 0:
		// Somebody has written another since: that is the machine's own now.
		return removeIfThere(path + aside)
	}
	switch err := os.Rename(path+aside, path); {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EXDEV):
		return fmt.Errorf("bringing %s back: %w", path, err)
	}
	text, err := os.ReadFile(path + aside)
	if err == nil {
		err = os.WriteFile(path, text, 0o644) //nolint:gosec // as it was
	}
	if err == nil {
		err = os.Remove(path + aside)
	}
	if err != nil {
		return fmt.Errorf("bringing %s back: %w", path, err)
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	return nil
}

// ourResolvConf is the machine's resolv.conf with our nameserver alone, and our
// search list before its own. The options stay: ndots among them, as most names
// that a machine asks for aren't the cluster's.
func ourResolvConf(path string, text []byte, dns netip.Addr, search []string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s\nnameserver %s\n", mark, path+aside, dns)
	domains := append([]string(nil), search...)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "search", "domain":
			domains = append(append([]string(nil), search...), fields[1:]...)
		case "options", "sortlist":
			b.WriteString(strings.Join(fields, " ") + "\n")
		}
	}
	if len(domains) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(domains, " "))
	}
	return b.Bytes()
}

// readResolvConf is the nameservers of a resolv.conf.
func readResolvConf(path string) ([]netip.Addr, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var list []netip.Addr
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			list = append(list, addr)
		}
	}
	return list, nil
}
