package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kept is a place of the user's that stays where it is though a volume lies over
// it: a pod with a volume at /tmp must not take the user's SSH agent away.
type kept struct {
	path string
	at   *os.File
}

// keptPlaces are where the user's agents and displays listen, by the environment.
func keptPlaces(env []string) []string {
	var places []string
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		switch name {
		case "SSH_AUTH_SOCK", "XAUTHORITY", "XDG_RUNTIME_DIR":
		case "DISPLAY":
			value = "/tmp/.X11-unix"
		case "DBUS_SESSION_BUS_ADDRESS":
			value, _, _ = strings.Cut(strings.TrimPrefix(value, "unix:path="), ",")
		default:
			continue
		}
		if filepath.IsAbs(value) {
			places = append(places, filepath.Clean(value))
		}
	}
	slices.Sort(places)
	return slices.Compact(places)
}

// openKept opens those of the places that a volume will hide.
func openKept(places []string, binds []Bind) []kept {
	var list []kept
	for _, path := range places {
		hides := func(b Bind) bool { return strings.HasPrefix(path, strings.TrimSuffix(b.Target, "/")+"/") }
		if !slices.ContainsFunc(binds, hides) {
			continue
		}
		if at, err := openPath(path); err == nil { // or there is nothing to hide
			list = append(list, kept{path, at})
		}
	}
	return list
}

// show mounts the place over what hides it. The mountpoint is made in the volume,
// and goes with the sandbox.
func (m *mounts) show(k kept) error {
	info, err := k.at.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(k.path); err == nil && os.SameFile(now, info) {
		return nil // it is not hidden after all
	}
	target, err := m.mountpoint(k.path, info.IsDir())
	if err == nil {
		err = unix.Mount(fdPath(k.at), target, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("keeping %s, which a volume hides: %w", k.path, err)
	}
	return nil
}

// showKept shows all that is kept. What can't be shown is no reason to have no
// sandbox.
func (m *mounts) showKept() error {
	var errs []error
	for _, k := range m.kept {
		errs = append(errs, m.show(k))
	}
	return errors.Join(errs...)
}

// isKept tells whether a place is one of the user's own.
func (m *mounts) isKept(place string) bool {
	now, err := os.Lstat(place)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(m.kept, func(k kept) bool {
		info, err := k.at.Stat()
		return err == nil && os.SameFile(now, info)
	})
}

// hidden are sockets at which daemons of this machine answer for names, whatever
// nsswitch.conf says: systemd-resolved, and avahi.
var hidden = []string{"/run/systemd/resolve/io.systemd.Resolve", "/run/avahi-daemon/socket"}

// hideSockets lies an empty file over each: who connects is refused, as where
// the daemon doesn't run. What lies beside it may be needed.
func (m *mounts) hideSockets() error {
	for _, path := range hidden {
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&os.ModeSocket == 0 {
			continue
		}
		nothing, err := m.put("nothing", "")
		if err == nil {
			err = unix.Mount(nothing, path, "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("hiding %s: %w", path, err)
		}
	}
	return nil
}
