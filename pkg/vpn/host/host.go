//go:build unix

// Package host is the place of --method vpn-tcp: the whole machine. What any
// program on it sends to the cluster's addresses goes to a device that the
// caller reads, and the cluster's names are asked for there.
//
// Only a helper, this program started again by sudo, is privileged, and it does
// four things: it makes the device, adds the routes, tells the machine's resolver
// of the names, and undoes all of that when its parent is gone, however that
// happened. The device's descriptor comes back over a unix socket; everything
// else, the tunnel included, runs as the user.
//
//  1. Start listens on a socket in a folder of the user's own, and starts the helper.
//  2. The helper connects. Each end asks the kernel who the other is.
//  3. The helper gets the Config, looks for collisions before it changes anything,
//     sets up, and sends the descriptor.
//  4. It waits for the connection to end, and undoes what it has done.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// Role is the first argument with which this program starts itself as the
// helper. What follows it is Main's.
const Role = "host-helper"

// How long the helper may take to start, a password typed at sudo's prompt
// included, and to undo its work.
const (
	startWithin = 2 * time.Minute
	undoWithin  = 30 * time.Second
)

// Config says what goes the cluster's way.
type Config struct {
	// Routes are the cluster's ranges, and further targets.
	Routes []netip.Prefix
	// Keep are addresses that go on the way they go now, though a route holds
	// them: the API server's.
	Keep []netip.Addr
	// Domains are those whose names are asked for in the cluster, without a
	// dot at the end; Search, the domains that are tried for short names.
	Domains []string
	Search  []string

	Log *slog.Logger `json:"-"`
	// Tell gets lines for the user.
	Tell func(string) `json:"-"`
	// Stdin and Stderr are for sudo, which may ask for a password.
	Stdin, Stderr *os.File `json:"-"`
}

// Host is the machine, with a device that the cluster's packets go to. Close
// puts it back. Safe for concurrent use.
type Host struct {
	device  tun.Device
	dnsAddr netip.Addr
	before  []netip.Addr
	conn    *net.UnixConn
	dir     string
	helper  *exec.Cmd
}

// Start sets the machine up. It returns when the device is there; nothing is
// answered before somebody reads it.
func Start(ctx context.Context, cfg Config) (_ *Host, err error) {
	dir, err := os.MkdirTemp("", "telepresence-host-")
	if err != nil {
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	h := &Host{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	socket := filepath.Join(dir, "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	defer listener.Close()
	if h.helper, err = startHelper(cfg, socket); err != nil {
		return nil, err
	}
	if h.conn, err = h.accept(ctx, listener); err != nil {
		return nil, err
	}
	a, device, err := ask(h.conn, cfg)
	if err != nil {
		return nil, err
	}
	for _, line := range a.Notes {
		cfg.Tell(line)
	}
	h.dnsAddr, h.before = a.DNSAddr, a.Nameservers
	h.device, err = tun.FromFile(device, tun.DefaultMTU)
	return h, err
}

// Device is where the packets come and go. Its reader closes it; the interface
// is there until Close.
func (h *Host) Device() tun.Device { return h.device }

// DNSAddr is where the machine's programs send the queries for the cluster's
// names; where Nameservers isn't empty, all queries.
func (h *Host) DNSAddr() netip.Addr { return h.dnsAddr }

// Nameservers are those that the machine asked before, for the names that
// aren't the cluster's. There are none where the machine's resolver goes on
// asking them by itself.
func (h *Host) Nameservers() []netip.Addr { return h.before }

// Close has the helper undo its work, and waits until it has. Idempotent.
func (h *Host) Close() error {
	var errs []error
	if h.device != nil {
		if err := h.device.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if h.conn != nil {
		errs = append(errs, h.finish())
		h.conn = nil
	} else if h.helper != nil {
		_ = h.helper.Process.Kill() // it never reached us: sudo, at its prompt
	}
	if h.helper != nil {
		if err := h.helper.Wait(); err != nil && len(errs) == 0 {
			errs = append(errs, fmt.Errorf("the helper: %w", err))
		}
		h.helper = nil
	}
	return errors.Join(append(errs, os.RemoveAll(h.dir))...)
}

// finish asks the helper to end and reads how that went.
func (h *Host) finish() error {
	defer h.conn.Close()
	if err := h.conn.CloseWrite(); err != nil {
		return fmt.Errorf("ending the helper: %w", err)
	}
	if err := h.conn.SetReadDeadline(time.Now().Add(undoWithin)); err != nil {
		return fmt.Errorf("ending the helper: %w", err)
	}
	a, _, err := readAnswer(h.conn)
	if err != nil {
		return fmt.Errorf("ending the helper: %w", err)
	}
	return a.err()
}

// startHelper starts this program again, as root.
func startHelper(cfg Config, socket string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	args := []string{self, Role, socket}
	if os.Geteuid() != 0 {
		sudo, err := exec.LookPath("sudo")
		if err != nil {
			return nil, &Error{
				Problem: "method vpn-tcp needs root for the device, the routes and DNS, and there is no sudo",
				Way:     "run telepresence as root, or use --method inject-tcp",
			}
		}
		cfg.Tell("sudo is asked for root: to make a network device, add routes to the cluster, and tell this machine's resolver of its names")
		args = append([]string{sudo, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it ends with its connection, when it has undone its work
	cmd.Stdin, cmd.Stderr = cfg.Stdin, cfg.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	return cmd, nil
}

// accept waits for the helper, and sees that it is root's.
func (h *Host) accept(ctx context.Context, l *net.UnixListener) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	const look = 100 * time.Millisecond
	for {
		if err := l.SetDeadline(time.Now().Add(look)); err != nil {
			return nil, fmt.Errorf("waiting for the helper: %w", err)
		}
		conn, err := l.AcceptUnix()
		if err == nil {
			uid, err := peerUID(conn)
			if err == nil && uid == 0 {
				return conn, nil
			}
			_ = conn.Close()
			return nil, fmt.Errorf("waiting for the helper: it is user %d's: %w", uid, errors.Join(err, os.ErrPermission))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fmt.Errorf("waiting for the helper: %w", err)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("waiting for the helper: %w", ctx.Err())
		}
		if ended(h.helper.Process.Pid) {
			return nil, &Error{Problem: "the privileged helper didn't start: sudo refused", Way: "run telepresence as root, or use --method inject-tcp"}
		}
	}
}

// Error is why the machine can't be set up.
type Error struct {
	Problem string
	Way     string // out of it
}

// Error is the problem.
func (e *Error) Error() string { return e.Problem }

// Hint is the way out.
func (e *Error) Hint() string { return e.Way }
