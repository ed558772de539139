package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/process"
)

// probe makes Main only show that it can be started.
const probe = "probe"

// Main is the keeper's side of a sandbox: what this program does when its first
// argument is Role. It returns the exit code.
func Main(args []string) int {
	if len(args) > 0 && args[0] == probe {
		return 0
	}
	unix.CloseOnExec(wireFD)
	unix.CloseOnExec(configFD)
	w, err := newWire(os.NewFile(wireFD, "sandbox"))
	if err != nil {
		return 1
	}
	c := &child{wire: w}
	var r request
	if _, err := w.receive(&r); err != nil || r.Op != opSetUp {
		return 1
	}
	first, files, err := c.setUp()
	if err != nil {
		first = failure(err)
	}
	first.ID = r.ID
	_ = w.send(first, files) // an error means that nobody waits: Keep sees that too
	closeAll(files)
	if err != nil {
		c.mounts.remove()
		return 1
	}
	var wg sync.WaitGroup
	wg.Go(c.serve)
	code := process.Keep(process.Keeping{DropCaps: c.cfg.UserNamespace, KeepCaps: c.cfg.KeepCaps})
	_ = w.conn.Close()
	wg.Wait()
	c.mounts.remove()
	return code
}

// child is the keeper.
type child struct {
	wire   *wire
	cfg    childConfig
	mounts mounts
	host   *hostRules
}

// setUp makes the namespaces a pod's. The files it returns go with the answer.
func (c *child) setUp() (answer, []*os.File, error) {
	f := os.NewFile(configFD, "config")
	err := json.NewDecoder(f).Decode(&c.cfg)
	_ = f.Close()
	if err != nil {
		return answer{}, nil, fmt.Errorf("reading the sandbox's configuration: %w", err)
	}
	if c.cfg.Hostname != "" {
		if err := unix.Sethostname([]byte(c.cfg.Hostname)); err != nil {
			return answer{}, nil, &Error{Op: "setting the hostname", Err: err}
		}
	}
	device, err := setUpNetwork(c.cfg)
	if err != nil {
		return answer{}, nil, err
	}
	files := []*os.File{device}
	if err := c.mounts.setUp(c.cfg); err != nil {
		closeAll(files)
		return answer{}, nil, err
	}
	a := answer{Made: c.mounts.made[:c.mounts.own]}
	if err := c.mounts.showKept(); err != nil {
		a.NoKeep = err.Error()
	}
	diag, err := diagSocket()
	if err != nil {
		closeAll(files)
		return answer{}, nil, err
	}
	files = append(files, diag)
	rules, relays, err := setUpHostRules()
	if err != nil {
		a.NoHost = err.Error()
	}
	c.host = rules
	for _, r := range relays {
		a.Relays = append(a.Relays, r.network)
		files = append(files, r.file)
	}
	return a, files, nil
}

// serve answers requests until the connection ends.
func (c *child) serve() {
	for {
		var r request
		files, err := c.wire.receive(&r)
		closeAll(files)
		if err != nil {
			return
		}
		var a answer
		files, err = c.answer(r)
		if err != nil {
			a = failure(err)
		}
		a.ID = r.ID
		err = c.wire.send(a, files)
		closeAll(files)
		if err != nil {
			return
		}
	}
}

// answer does what the parent asks for, and returns the files to pass on.
func (c *child) answer(r request) ([]*os.File, error) {
	switch r.Op {
	case opSocket:
		f, err := tcpSocket(r.Network)
		if err != nil {
			return nil, err
		}
		return []*os.File{f}, nil
	case opListen:
		f, err := listen(r.Network, r.Addr, false)
		if err != nil {
			return nil, err
		}
		return []*os.File{f}, nil
	case opHost:
		return nil, c.host.set(r.Host)
	}
	return nil, errors.New("unknown request " + r.Op)
}
