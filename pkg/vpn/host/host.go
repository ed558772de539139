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
//
// A guard, a process beside the helper, undoes it where the helper is killed.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

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
	helper  *launched
	lost    chan struct{} // closed when the helper has said its last
	last    error         // what that was; read it when lost is closed
	hearing sync.WaitGroup
}

// Start sets the machine up. It returns when the device is there; nothing is
// answered before somebody reads it.
func Start(ctx context.Context, cfg Config) (_ *Host, err error) {
	dir, err := os.MkdirTemp("", "telepresence-host-")
	if err != nil {
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	h := &Host{dir: dir, lost: make(chan struct{})}
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
	if h.helper, err = launch(cfg, socket); err != nil {
		return nil, err
	}
	if h.conn, err = h.helper.accept(ctx, listener); err != nil {
		return nil, err
	}
	a, device, err := ask(h.conn, cfg)
	conn := h.conn
	h.hearing.Go(func() { h.listen(conn) })
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil { // now, and not only at the end, which a kill would forestall
		return nil, fmt.Errorf("removing the helper's socket: %w", err)
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

// Lost is closed when the helper is gone, though nobody has asked it to: then
// the machine is as it was before, but for the device.
func (h *Host) Lost() <-chan struct{} { return h.lost }

// ErrLost is why a session ends whose helper is gone.
var ErrLost = &Error{
	Problem: "it was killed: the cluster's names can't be asked for any more",
	Way:     "start the session again; --method inject-tcp needs no privileged helper",
}

// listen hears what the helper says last: at the end, or when it is killed.
func (h *Host) listen(conn *net.UnixConn) {
	defer close(h.lost)
	a, _, err := readAnswer(conn)
	h.last = errors.Join(err, a.err())
}

// Close has the helper undo its work, and waits until it has. Idempotent.
func (h *Host) Close() error {
	var errs []error
	if h.device != nil {
		if err := h.device.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	reached := h.conn != nil
	if reached {
		errs = append(errs, h.finish())
		h.conn = nil
	}
	if h.helper != nil {
		// Of one that has reached us, all is known that is to be told.
		if err := h.helper.end(reached); err != nil && !reached {
			errs = append(errs, err)
		}
		h.helper = nil
	}
	return errors.Join(append(errs, os.RemoveAll(h.dir))...)
}

// finish asks the helper to end and hears how that went.
func (h *Host) finish() error {
	defer h.hearing.Wait()
	defer h.conn.Close()
	err := errors.Join(h.conn.CloseWrite(), h.conn.SetReadDeadline(time.Now().Add(undoWithin)))
	if err != nil && !errors.Is(err, unix.ENOTCONN) { // which is one that was killed
		return fmt.Errorf("ending the helper: %w", err)
	}
	<-h.lost
	switch {
	case h.last == nil:
		return nil
	case errors.Is(h.last, io.EOF), errors.Is(h.last, unix.ECONNRESET): // killed as it ended: that is its guard's
		return repairAsRoot()
	default:
		return errors.Join(fmt.Errorf("ending the helper: %w", h.last), repairAsRoot())
	}
}

// repairAsRoot does what the next session would do, if we may: the guard may
// have been killed too.
func repairAsRoot() error {
	if os.Geteuid() != 0 {
		return nil
	}
	err := clearAway()
	if _, ok := errors.AsType[*Error](err); ok { // what is there is another session's
		return nil
	}
	return err
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
