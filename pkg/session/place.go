package session

import (
	"context"
	"net"
	"net/netip"
	"os"

	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// place is a method: where the user's process runs and what it sends is
// intercepted.
type place interface {
	// check tells what this machine lacks for the method. It changes nothing.
	check(ctx context.Context) error
	// open makes the room for a process that will find the pod's names,
	// environment and files in it, and runs nothing yet.
	open(ctx context.Context, in furniture) (room, error)
}

// room is what a place has made, for one process.
type room interface {
	network
	localEnd
	localProcess
	// ListenInside listens on 127.0.0.1:port of the room.
	ListenInside(ctx context.Context, port uint16) (net.Listener, error)
}

// network is the room's own, whose packets the engine reads and writes.
type network interface {
	Device() tun.Device
	// DNSAddr is where the room's processes send their queries.
	DNSAddr() netip.Addr
}

// localEnd is where the local process listens.
type localEnd interface {
	// Dial connects to 127.0.0.1:port as a program beside the process would.
	Dial(ctx context.Context, port uint16) (net.Conn, error)
	// Listening tells whether something listens on the port there.
	Listening(port uint16) bool
}

// localProcess is the user's.
type localProcess interface {
	// Release starts it.
	Release() error
	// Wait returns its exit code when it has ended, 128+N for signal N, or
	// why it could not be started.
	Wait() (int, error)
	Signal(sig os.Signal) error
	// Close ends what still runs in the room and takes it away.
	Close() error
}

// furniture is what the process finds in its room.
type furniture struct {
	command   []string          // program and arguments; nothing with --docker-run
	variables map[string]string // of the pod's, and the session's own
	hostname  string
	resolv    string // the pod's resolv.conf
	hosts     string // the pod's /etc/hosts
	addresses []netip.Addr
	volumes   []volume
	podPorts  []uint16 // of localhost, that lead to the pod and not to this machine
}

// volume is one of the pod's, as it is to be found.
type volume struct {
	source   string // a path on this machine
	target   string // its true path
	readOnly bool
}
