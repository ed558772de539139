package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The descriptors that the keeper is started with, beside those of package
// process, whose control connection is 3.
const (
	wireFD   = 4 // requests in, answers out
	configFD = 5 // a childConfig
)

// callPatience is how long the keeper may take for a request. All but the first
// are a few system calls.
const callPatience = 30 * time.Second

// maxMessage is more than a request or an answer ever has, in bytes.
const maxMessage = 128 << 10

// childConfig is the part of a Config that the keeper needs.
type childConfig struct {
	Hostname          string
	ResolvConf, Hosts string
	Addresses         []netip.Addr
	Binds             []Bind
	Keep              []string // places that stay what they are under Binds
	UserNamespace     bool
	KeepCaps          uint64 // what capabilities the user's process may have
}

// request is what this program asks of the keeper.
type request struct {
	ID      int
	Op      string
	Network string         // opSocket, opListen: tcp4 or tcp6
	Addr    netip.AddrPort // opListen
	Host    hostPorts      // opHost
}

const (
	opSetUp  = "set up" // answered with the device, and descriptors for localhost
	opSocket = "socket" // answered with an unconnected TCP socket that bypasses the machine's ports
	opListen = "listen" // answered with a TCP listener
	opHost   = "host"   // sets which ports the machine's localhost has
)

// hostPorts are the TCP ports on which something listens on the machine's
// localhost.
type hostPorts struct{ V4, V6 []uint16 }

// answer is the keeper's.
type answer struct {
	ID     int
	Op     string // on an error: what was being done, unless Error says it
	Error  string
	Errno  syscall.Errno
	Relays []string // opSetUp: the networks of the relay listeners that follow the device
	NoHost string   // opSetUp: why the machine's localhost can't be reached, if so
	NoKeep string   // opSetUp: what of Keep is hidden, if anything is
	Made   []string // opSetUp: empty mountpoints that it has made on the machine
}

func (a answer) err() error {
	if a.Error == "" {
		return nil
	}
	err := errors.New(a.Error)
	if a.Errno != 0 {
		err = &told{a.Error, a.Errno}
	}
	if a.Op == "" {
		return err
	}
	return fmt.Errorf("%s: %w", a.Op, err)
}

// told is an error of the keeper's: what it was, with all names, and its cause.
type told struct {
	text  string
	cause syscall.Errno
}

// Error is the whole of it.
func (t *told) Error() string { return t.text }

// Unwrap is the cause.
func (t *told) Unwrap() error { return t.cause }

// failure is the answer that carries an error.
func failure(err error) answer {
	a := answer{Error: err.Error()}
	if e := (*Error)(nil); errors.As(err, &e) {
		a.Op = e.Op
		a.Error = e.Err.Error()
	}
	_ = errors.As(err, &a.Errno)
	return a
}

// wire is one end of the connection with the keeper: whole messages, with
// descriptors.
type wire struct {
	mu   sync.Mutex // one call at a time
	conn *net.UnixConn
	last int
}

// wirePair makes both ends.
func wirePair() (ours *wire, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "sandbox")
	ours, err = newWire(os.NewFile(uintptr(fds[0]), "sandbox"))
	if err != nil {
		_ = theirs.Close()
	}
	return ours, theirs, err
}

// newWire takes f over.
func newWire(f *os.File) (*wire, error) {
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("using a socket pair: %w", err)
	}
	return &wire{conn: c.(*net.UnixConn)}, nil
}

// call asks the keeper, and returns its answer with the descriptors that came.
// The answer is there by the deadline or not at all.
func (w *wire) call(r request, deadline time.Time) (answer, []*os.File, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	r.ID = w.last
	_ = w.conn.SetDeadline(deadline)
	if err := w.send(r, nil); err != nil {
		return answer{}, nil, err
	}
	for {
		var a answer
		files, err := w.receive(&a)
		if err != nil {
			return answer{}, nil, err
		}
		if a.ID != r.ID { // of a call whose deadline had passed
			closeAll(files)
			continue
		}
		if err := a.err(); err != nil {
			closeAll(files)
			return answer{}, nil, err
		}
		return a, files, nil
	}
}

// send sends one message. The files stay the caller's.
func (w *wire) send(v any, files []*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err = w.conn.WriteMsgUnix(b, oob, nil)
	return err
}

// receive receives one message, and the files that came with it.
func (w *wire) receive(v any) ([]*os.File, error) {
	b, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(8*4))
	n, on, _, _, err := w.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, net.ErrClosed
	}
	files, err := filesOf(oob[:on])
	if err == nil {
		err = json.Unmarshal(b[:n], v)
	}
	if err != nil {
		closeAll(files)
		return nil, fmt.Errorf("reading a message of the sandbox: %w", err)
	}
	return files, nil
}

// filesOf are the descriptors that came with a message.
func filesOf(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		for _, fd := range fds {
			_ = unix.SetNonblock(fd, true) // or the runtime can't wait for it
			files = append(files, os.NewFile(uintptr(fd), "sandbox"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
