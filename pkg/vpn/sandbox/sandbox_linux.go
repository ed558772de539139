package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/pkg/process"
	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// Sandbox is where the user's process runs. Its methods may be called from
// several goroutines at once. Who starts one must Close it.
type Sandbox struct {
	cfg     Config
	log     *slog.Logger
	process *process.Process
	wire    *wire
	device  tun.Device
	addrs   []netip.Addr
	dns     netip.Addr
	inside  *diag    // asks for the listeners in the sandbox
	netns   uint64   // the inode of its network namespace
	made    []string // empty mountpoints on the machine, of which the keeper takes care

	cancel context.CancelFunc // ends what wg waits for
	wg     sync.WaitGroup

	mu    sync.Mutex      // guards the fields below
	ports map[uint16]bool // listeners in the sandbox that are ours
}

// Start makes a sandbox. The user's process waits for Release. ctx bounds the
// start only. An *Error, with a hint, says what this machine lacks.
func Start(ctx context.Context, cfg Config) (*Sandbox, error) {
	if err := deviceAllowed(); err != nil {
		return nil, err
	}
	s := &Sandbox{cfg: cfg, log: cfg.Log, ports: map[uint16]bool{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.addrs, s.dns = addresses(cfg.Addresses)
	relays, err := s.start(ctx)
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	own := context.WithoutCancel(ctx)
	own, s.cancel = context.WithCancel(own)
	s.wg.Go(func() { s.followLocalhost(own, relays) })
	return s, nil
}

// start starts the keeper, and has it set up the sandbox. It returns the relay
// listeners of the machine's localhost.
func (s *Sandbox) start(ctx context.Context) ([]net.Listener, error) {
	child := childConfig{
		Hostname: s.cfg.Hostname, ResolvConf: s.cfg.ResolvConf, Hosts: s.cfg.Hosts,
		Addresses: s.addrs, Binds: s.cfg.Binds, Keep: keptPlaces(s.cfg.Env),
		UserNamespace: !mayMakeNamespaces(), KeepCaps: ownCaps(),
	}
	config, err := memoryFile(child)
	if err != nil {
		return nil, err
	}
	defer func() { _ = config.Close() }()
	ours, theirs, err := wirePair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	s.wire = ours
	s.process, err = process.Start(ctx, process.Config{
		Command: s.cfg.Command, Env: s.cfg.Env, Dir: s.cfg.Dir,
		Stdin: s.cfg.Stdin, Stdout: s.cfg.Stdout, Stderr: s.cfg.Stderr,
		Grace: s.cfg.Grace, Log: s.log,
		Keeper: func(cmd *exec.Cmd) {
			cmd.Args = []string{cmd.Args[0], Role}
			cmd.ExtraFiles = append(cmd.ExtraFiles, theirs, config)
			intoNamespaces(cmd.SysProcAttr, child.UserNamespace)
		},
	})
	if err != nil {
		return nil, explainNamespaces(err)
	}
	_ = theirs.Close() // so that we see its end when the keeper dies
	return s.setUp(ctx)
}

// setUp has the keeper set up the sandbox, and takes the descriptors over.
func (s *Sandbox) setUp(ctx context.Context) ([]net.Listener, error) {
	deadline := time.Now().Add(callPatience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	var ns unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", s.process.KeeperPID()), &ns); err == nil {
		s.netns = ns.Ino
	}
	a, files, err := s.wire.call(request{Op: opSetUp}, deadline)
	if err != nil {
		return nil, explainSetUp(err)
	}
	defer closeAll(files)
	if len(files) != 2+len(a.Relays) {
		return nil, errors.New("setting up the sandbox: its keeper sent too few descriptors")
	}
	if s.device, err = tun.FromFile(files[0], tun.DefaultMTU); err != nil {
		return nil, err
	}
	s.inside = &diag{file: files[1]}
	files[1] = nil
	s.made = a.Made
	if a.NoKeep != "" {
		s.log.Warn("the process can't reach what listens there", "error", a.NoKeep)
	}
	if a.NoHost != "" {
		s.log.Warn("the machine's localhost can't be reached from the process", "error", a.NoHost)
	}
	var relays []net.Listener
	for _, f := range files[2:] {
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("using a relay listener: %w", err)
		}
		s.ports[portOf(l.Addr())] = true
		relays = append(relays, l)
	}
	return relays, nil
}

// intoNamespaces makes a process start in namespaces of its own.
func intoNamespaces(attr *syscall.SysProcAttr, user bool) {
	attr.Cloneflags |= unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	if !user {
		return
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	uid, gid := os.Geteuid(), os.Getegid()
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	// Who isn't root there loses capabilities by executing, but for these.
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SETPCAP, unix.CAP_SYS_PTRACE}
}

// memoryFile is a file without a name that holds v as JSON.
func memoryFile(v any) (*os.File, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("sandbox", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "sandbox")
	if _, err = bytes.NewReader(b).WriteTo(f); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("writing a file in memory: %w", err)
	}
	return f, nil
}

// Device is the other end of what the sandbox sends and receives. Who runs an
// engine on it may close it; Close does so too.
func (s *Sandbox) Device() tun.Device { return s.device }

// Addr is the address that the process has.
func (s *Sandbox) Addr() netip.Addr { return s.addrs[0] }

// DNSAddr is where the process sends its queries: the device carries them.
func (s *Sandbox) DNSAddr() netip.Addr { return s.dns }

// Release lets the user's process start. It returns when it did, or why it
// can't.
func (s *Sandbox) Release() error { return s.process.Release() }

// Wait waits until the user's process has ended, and says how.
func (s *Sandbox) Wait() (process.ExitStatus, error) { return s.process.Wait() }

// Signal sends a signal to the user's process and its group.
func (s *Sandbox) Signal(sig os.Signal) error { return s.process.Signal(sig) }

// Close ends all that runs in the sandbox: SIGTERM first, SIGKILL when the
// grace is over. It returns when nothing is left, and may be called again.
func (s *Sandbox) Close() error {
	var err error
	if s.process != nil {
		err = s.process.Close()
		s.killStrays()
		if _, err := s.process.Wait(); err != nil { // the keeper hasn't ended in order
			removeMade(s.made)
		}
	}
	if s.cancel != nil {
		s.cancel()
	}
	s.wg.Wait()
	if s.wire != nil {
		_ = s.wire.conn.Close()
	}
	if s.inside != nil {
		_ = s.inside.file.Close()
	}
	if s.device != nil {
		_ = s.device.Close()
	}
	return err
}

// killStrays kills what runs in the network namespace without its keeper, which
// somebody must have killed.
func (s *Sandbox) killStrays() {
	if s.netns == 0 {
		return
	}
	deadline := time.Now().Add(callPatience)
	for pids := processesIn(s.netns); len(pids) > 0 && time.Now().Before(deadline); pids = processesIn(s.netns) {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
