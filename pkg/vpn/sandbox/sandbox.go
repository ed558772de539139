// Package sandbox is the place of --method inject-tcp: it runs the user's
// process in a fresh network, mount and UTS namespace, in which the hostname,
// resolv.conf, hosts and the volumes are the pod's and all packets go to a
// device that the caller reads.
//
// It needs no root: without it, the namespaces belong to a user namespace in
// which users keep their ids. Nothing outside of the namespaces changes, but for
// the listeners on the machine's localhost behind which the process's own lie,
// and empty mountpoints where the user may make them; both go with the sandbox.
//
//  1. Start starts this program again, in the namespaces, as the keeper (see
//     package process), which sets them up: Main is its side.
//  2. The keeper passes the device's descriptor back; the caller runs an engine on it.
//  3. Release lets the user's process start, Wait waits for its end.
//  4. Close ends all that runs in the sandbox.
package sandbox

import (
	"log/slog"
	"net/netip"
	"os"
	"time"
)

// Role is the first argument with which this program starts itself in a
// sandbox. What follows it is Main's.
const Role = "sandbox-keeper"

// Config says what the process in a sandbox is and sees.
type Config struct {
	Hostname string // empty: the machine's
	// ResolvConf is the pod's resolv.conf. Its nameservers are replaced by
	// DNSAddr; the rest stays.
	ResolvConf string
	// Hosts is the pod's hosts file; localhost is added where it lacks it.
	Hosts string
	// Addresses are the pod's. The process has them too, so that it can bind
	// them and tell them to others; empty: addresses of the sandbox's own.
	Addresses []netip.Addr
	Binds     []Bind
	// PodPorts are TCP ports on localhost that are the pod's (--to-pod,
	// --from-pod): never those of the machine.
	PodPorts []uint16

	Command               []string // program and arguments
	Env                   []string
	Dir                   string // empty: the current one
	Stdin, Stdout, Stderr *os.File
	// Grace is how long the process has between SIGTERM and SIGKILL; 0 means
	// process.DefaultGrace.
	Grace time.Duration

	Log  *slog.Logger // nil: no log
	Tell func(string) // a line for the user; nil: only the log has it
}

// Bind lets a file or a folder of this machine appear at a second place in the
// sandbox. What the machine has at that place is hidden, and nothing around it.
type Bind struct {
	Source, Target string // absolute paths
	ReadOnly       bool
}

// Error is why there can be no sandbox on this machine.
type Error struct {
	Op   string // what was being done
	Err  error
	hint string
}

// Error says what could not be done, and why.
func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says, in commands, what makes a sandbox possible, and what works
// without one.
func (e *Error) Hint() string { return e.hint }
