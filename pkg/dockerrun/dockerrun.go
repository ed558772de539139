// Package dockerrun is the place of --docker-run: it runs the user's container in
// a network namespace whose packets the caller reads, with whatever engine the
// user's docker command reaches.
//
//  1. Start loads this very program into the engine as an image, and starts a
//     container of it, the helper. That owns the network namespace: it opens a TUN
//     device in it and hands the packets over by its standard input and output,
//     so that the engine may be on another machine. Helper is its side.
//  2. Release starts the user's container by docker run, in the helper's network
//     namespace: arguments, terminal, messages and exit code are docker's own.
//  3. When the stream to the helper ends, however that happens, the helper ends.
//  4. An engine elsewhere doesn't see this machine's files: it has docker volumes
//     that the helper fills with copies of them, again at each Mirror.
//  5. Close removes all that was made. Sweep removes what those have left who
//     could not.
package dockerrun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/docker/docker/api/types/container"

	"github.com/telepresence/telepresence/pkg/process"
	"github.com/telepresence/telepresence/pkg/vpn/tun"
)

// The labels on all that a session makes in the engine.
const (
	labelSession = "telepresence.io/session"
	labelRole    = "telepresence.io/role"
	roleHelper   = "helper"
	roleUser     = "local-process"
)

// The helper's device: its address, and the one at which DNS is answered. From
// the range for benchmarks (RFC 2544), which no network uses.
var (
	deviceAddr = netip.MustParsePrefix("198.18.255.1/30")
	dnsAddr    = netip.MustParseAddr("198.18.255.2")
)

// Config says what is run, and what it finds.
type Config struct {
	Engine  *Engine
	Args    *Args
	Session string // for the labels
	Binary  string // a static Linux program that calls Helper for HelperArg; empty: this one

	Hostname   string
	ResolvConf string // the pod's: its search list and options are the container's
	Environ    []string
	Volumes    []Volume
	ToHost     []Relay // ports of the container's localhost that reach this machine's

	Stdin, Stdout, Stderr *os.File
	Log                   *slog.Logger
}

// Volume is a folder or file of this machine that the container finds at Target,
// unless the user mounts something there.
type Volume struct {
	Source, Target string
	ReadOnly       bool
}

// Relay is a port of the container's localhost, and the port of this machine's
// that it reaches.
type Relay struct{ Container, Host uint16 }

// Container is the user's container and the helper that goes with it. Safe for
// concurrent use. Who starts one closes it.
type Container struct {
	cfg     Config
	helper  string // container id
	image   string
	stream  *stream
	run     *process.Process
	env     *envDir   // with the environment, as docker run reads it
	mirrors []*mirror // what an engine elsewhere has copies of
	running sync.WaitGroup
	stop    context.CancelFunc
}

// Start makes the network namespace. The user's container isn't started yet.
func Start(ctx context.Context, cfg Config) (_ *Container, err error) {
	c := &Container{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.image, err = cfg.Engine.loadHelper(ctx, cfg.Binary); err != nil {
		return nil, err
	}
	if err := c.makeMirrors(); err != nil {
		return nil, err
	}
	if err := c.startHelper(ctx); err != nil {
		return nil, err
	}
	if err := c.Mirror(ctx); err != nil {
		return nil, err
	}
	relayCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	for _, r := range cfg.ToHost {
		listener, err := c.stream.listen(r.Container)
		if err != nil {
			return nil, fmt.Errorf("listening on port %d in the container: %w", r.Container, err)
		}
		c.running.Go(func() { toHost(relayCtx, listener, r.Host, &c.running) })
	}
	return c, c.prepare(ctx)
}

// prepare makes docker run ready to start.
func (c *Container) prepare(ctx context.Context) error {
	env, err := makeEnvDir(os.TempDir())
	if err != nil {
		return err
	}
	c.env = env
	x := extra{
		helper: c.helper,
		labels: []string{labelSession + "=" + c.cfg.Session, labelRole + "=" + roleUser},
	}
	environ := os.Environ()
	var file strings.Builder
	for _, v := range c.cfg.Environ {
		name, value, _ := strings.Cut(v, "=")
		if !strings.ContainsAny(value, "\n\r") {
			file.WriteString(v + "\n")
			continue
		}
		// The file's format has no line breaks in values.
		x.env, environ = append(x.env, name), append(environ, v)
	}
	x.envFile = filepath.Join(env.path, "environment")
	if err := os.WriteFile(x.envFile, []byte(file.String()), 0o600); err != nil {
		return fmt.Errorf("writing the environment: %w", err)
	}
	if c.cfg.Engine.SharesFiles() {
		for _, v := range c.shown() {
			x.mounts = append(x.mounts, "--mount="+bind(v))
		}
	} else if x.mounts, err = c.volumeOptions(ctx); err != nil {
		return err
	}
	line, err := c.cfg.Args.run(x)
	if err != nil {
		return err
	}
	c.run, err = process.Start(ctx, process.Config{
		Command: append([]string{c.cfg.Engine.cli}, line...), Env: environ,
		Stdin: c.cfg.Stdin, Stdout: c.cfg.Stdout, Stderr: c.cfg.Stderr, Log: c.cfg.Log,
	})
	return err
}

// shown are the volumes that the container gets: not those at whose place the
// user mounts something, nor those that docker's options can't express.
func (c *Container) shown() []Volume {
	return slices.DeleteFunc(slices.Clone(c.cfg.Volumes), func(v Volume) bool {
		return slices.Contains(c.cfg.Args.targets, v.Target) || strings.ContainsAny(v.Source+v.Target, `,:"`)
	})
}

// bind is a volume as docker's --mount has it.
func bind(v Volume) string {
	m := "type=bind,source=" + v.Source + ",target=" + v.Target
	if v.ReadOnly {
		m += ",readonly"
	}
	return m
}

// Device is the namespace's device: its packets are the container's.
func (c *Container) Device() tun.Device { return c.stream.device }

// DNSAddr is where the container's programs send their queries.
func (*Container) DNSAddr() netip.Addr { return dnsAddr }

// Dial connects to 127.0.0.1:port in the container's network namespace.
func (c *Container) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	return c.stream.dial(ctx, port)
}

// Listening tells whether something listens on the port there.
func (c *Container) Listening(port uint16) bool { return c.stream.listening(port) }

// ListenInside listens on 127.0.0.1:port there.
func (c *Container) ListenInside(_ context.Context, port uint16) (net.Listener, error) {
	return c.stream.listen(port)
}

// Release starts the user's container.
func (c *Container) Release() error { return c.run.Release() }

// Wait returns docker run's exit code: the container's own, or, where docker
// itself failed and has said why, 125 to 127.
func (c *Container) Wait() (int, error) {
	status, err := c.run.Wait()
	return status.ExitCode(), err
}

// Signal sends the container's process a signal. docker run hands signals on,
// but not with a terminal.
func (c *Container) Signal(sig os.Signal) error {
	if !c.cfg.Args.terminal {
		return c.run.Signal(sig)
	}
	return c.cfg.Engine.signal(c.cfg.Session, sig)
}

// Close ends the user's container, and removes it and the helper. Idempotent.
func (c *Container) Close() error {
	var errs []error
	if c.run != nil {
		errs = append(errs, c.run.Close())
	}
	if c.stop != nil {
		c.stop()
	}
	if c.stream != nil {
		c.stream.close()
	}
	c.running.Wait()
	if c.helper != "" || c.image != "" {
		errs = append(errs, c.cfg.Engine.clear(c.cfg.Session, c.image))
	}
	if c.env != nil {
		errs = append(errs, c.env.remove())
	}
	return errors.Join(errs...)
}

// startHelper makes the helper container and talks to it.
func (c *Container) startHelper(ctx context.Context) error {
	e := c.cfg.Engine
	config, host, err := helperConfig(c.cfg, c.image)
	if err != nil {
		return err
	}
	host.Mounts = c.helperMounts()
	made, err := e.client.ContainerCreate(ctx, config, host, nil, nil, "")
	if err != nil {
		return fmt.Errorf("making the helper container: %w", err)
	}
	c.helper = made.ID
	attached, err := e.client.ContainerAttach(ctx, made.ID, container.AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		return fmt.Errorf("attaching to the helper container: %w", err)
	}
	if err := e.client.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		attached.Close()
		return fmt.Errorf("starting the helper container: %w", err)
	}
	c.stream, err = newStream(attached, c.cfg.Log)
	return err
}
