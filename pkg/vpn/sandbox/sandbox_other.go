//go:build unix && !linux

package sandbox

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/telepresence/telepresence/pkg/doctor"
	"github.com/telepresence/telepresence/pkg/process"
	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// Sandbox is where the user's process runs. There is none on this system.
type Sandbox struct{}

func errNoSandbox() error {
	return &Error{
		Op: "making a sandbox", Err: errors.New("this operating system has no network namespaces"),
		hint: "--method vpn-tcp works here, and so does --docker-run",
	}
}

// Start returns an error: a sandbox needs Linux.
func Start(context.Context, Config) (*Sandbox, error) { return nil, errNoSandbox() }

// Device is nil.
func (s *Sandbox) Device() tun.Device { return nil }

// Addr is no address.
func (s *Sandbox) Addr() netip.Addr { return netip.Addr{} }

// DNSAddr is no address.
func (s *Sandbox) DNSAddr() netip.Addr { return netip.Addr{} }

// Listening is false.
func (s *Sandbox) Listening(uint16) bool { return false }

// Dial returns an error.
func (s *Sandbox) Dial(context.Context, uint16) (net.Conn, error) { return nil, errNoSandbox() }

// ListenInside returns an error.
func (s *Sandbox) ListenInside(uint16) (net.Listener, error) { return nil, errNoSandbox() }

// Release returns an error.
func (s *Sandbox) Release() error { return errNoSandbox() }

// Wait returns an error.
func (s *Sandbox) Wait() (process.ExitStatus, error) { return process.ExitStatus{}, errNoSandbox() }

// Signal returns an error.
func (s *Sandbox) Signal(os.Signal) error { return errNoSandbox() }

// Close does nothing.
func (s *Sandbox) Close() error { return nil }

// Main returns an exit code for an error.
func Main([]string) int { return 1 }

// Checks are none: inject-tcp is not for this system.
func Checks() []doctor.Check { return nil }
