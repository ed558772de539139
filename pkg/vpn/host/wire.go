//go:build unix

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// What parent and helper say to each other over the socket: the parent sends a
// Config as one JSON text and a line break; the helper sends an answer in the
// same form, with the device's descriptor beside it (SCM_RIGHTS, unix(7)). When
// the parent ends its side, the helper undoes its work and sends another answer.

// maxMessage bounds a message of either side.
const maxMessage = 64 << 10

// answer is the helper's.
type answer struct {
	Problem     string       `json:"problem,omitempty"`
	Way         string       `json:"way,omitempty"`
	Notes       []string     `json:"notes,omitempty"`
	DNSAddr     netip.Addr   `json:"dnsAddr"`
	Nameservers []netip.Addr `json:"nameservers,omitempty"`
}

func (a answer) err() error {
	if a.Problem == "" {
		return nil
	}
	return &Error{Problem: a.Problem, Way: a.Way}
}

// ask sends the Config and waits for the device.
func ask(conn *net.UnixConn, cfg Config) (answer, *os.File, error) {
	text, err := json.Marshal(cfg)
	if err == nil {
		_, err = conn.Write(append(text, '\n'))
	}
	if err != nil {
		return answer{}, nil, fmt.Errorf("telling the helper what to do: %w", err)
	}
	a, device, err := readAnswer(conn)
	if err != nil {
		return a, nil, fmt.Errorf("hearing from the helper: %w", err)
	}
	if a.err() == nil && device == nil {
		return a, nil, errors.New("hearing from the helper: it sent no device")
	}
	return a, device, a.err()
}

// readAnswer reads one answer, and the file that came with it, if one did.
func readAnswer(conn *net.UnixConn) (answer, *os.File, error) {
	var a answer
	text, control := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, cn, _, _, err := conn.ReadMsgUnix(text, control)
	if err != nil {
		return a, nil, err
	}
	file, err := fileIn(control[:cn])
	if err != nil {
		return a, nil, err
	}
	if err := json.Unmarshal(text[:n], &a); err != nil {
		return a, nil, errors.Join(fmt.Errorf("reading its answer: %w", err), closeIf(file))
	}
	return a, file, nil
}

func closeIf(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// fileIn is the file that a control message passes on, or nil.
func fileIn(control []byte) (*os.File, error) {
	if len(control) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("reading a descriptor: %d messages: %w", len(messages), errors.Join(err, unix.EINVAL))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("reading a descriptor: %d of them: %w", len(fds), errors.Join(err, unix.EINVAL))
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "tun"), nil
}

// send writes an answer, and passes a file on with it unless that is nil.
func send(conn *net.UnixConn, a answer, file *os.File) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	_, _, err = conn.WriteMsgUnix(text, rights, nil)
	return err
}
