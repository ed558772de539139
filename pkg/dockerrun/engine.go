package dockerrun

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/telepresence/telepresence/images"
)

// How long the engine may take for what is cleared up in it.
const clearWithin = time.Minute

// How long removing is tried again.
const removeWithin = 5 * time.Second

// ConnectConfig says how the engine is reached.
type ConnectConfig struct {
	CLI string // the docker command
	Log *slog.Logger
}

// Engine is the docker engine that the user's docker command reaches. Safe for
// concurrent use.
type Engine struct {
	cli    string
	client *client.Client
	log    *slog.Logger
	local  bool // it is on this machine
	arch   string
	// bounded is the time for what is done when a session is over.
	bounded func() (context.Context, context.CancelFunc)
}

// Error is why there is no engine to be used.
type Error struct {
	Problem string
	Way     string // out of it
	Err     error
}

// Error is the problem.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Problem
	}
	return e.Problem + ": " + e.Err.Error()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint is the way out.
func (e *Error) Hint() string { return e.Way }

// Connect finds the engine and asks what it is.
func Connect(ctx context.Context, cfg ConnectConfig) (*Engine, error) {
	cli, err := exec.LookPath(cfg.CLI)
	if err != nil {
		return nil, &Error{Problem: "--docker-run needs the docker command", Way: "install it, or use --run", Err: err}
	}
	host, err := endpoint(ctx, cli)
	if err != nil {
		return nil, err
	}
	options := []client.Opt{client.WithAPIVersionNegotiation(), client.WithHost(host)}
	if !strings.HasPrefix(host, "unix://") && !plainTCP(host) {
		// Over ssh, or TLS, as the docker command alone knows how.
		options = append(options, client.WithHost("http://docker.example"), client.WithDialContext(dialStdio(cli)))
	}
	c, err := client.NewClientWithOpts(options...)
	if err != nil {
		return nil, &Error{Problem: "the docker engine at " + host + " can't be used", Err: err}
	}
	info, err := c.Info(ctx)
	if err != nil {
		return nil, errors.Join(&Error{
			Problem: "the docker engine at " + host + " doesn't answer",
			Way:     "see docker version; another engine is chosen by docker context use, or DOCKER_HOST", Err: err,
		}, c.Close())
	}
	hostname, _ := os.Hostname()
	return &Engine{
		cli: cli, client: c, log: cfg.Log, arch: goArch(info.Architecture),
		bounded: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.WithoutCancel(ctx), clearWithin)
		},
		local: strings.HasPrefix(host, "unix://") && info.Name == hostname && !strings.Contains(info.OperatingSystem, "Docker Desktop"),
	}, nil
}

// endpoint is where the docker command reaches its engine.
func endpoint(ctx context.Context, cli string) (string, error) {
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		return host, nil
	}
	out, err := exec.CommandContext(ctx, cli, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}").Output()
	if err != nil {
		return "", &Error{Problem: "asking docker for its context", Way: "see docker context ls", Err: err}
	}
	return strings.TrimSpace(string(out)), nil
}

// plainTCP tells whether an address is spoken to without TLS.
func plainTCP(host string) bool {
	return strings.HasPrefix(host, "tcp://") && os.Getenv("DOCKER_TLS_VERIFY") == "" && os.Getenv("DOCKER_TLS") == "" && os.Getenv("DOCKER_CONTEXT") == "" && os.Getenv("DOCKER_HOST") != ""
}

// goArch is an architecture as Go names it.
func goArch(arch string) string {
	switch arch {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return arch
}

// SharesFiles tells whether containers can be shown this machine's files.
func (e *Engine) SharesFiles() bool { return e.local }

// Rootless tells whether the engine runs as this user, and so sees what only
// they may.
func (e *Engine) Rootless() bool {
	at, err := os.Stat(strings.TrimPrefix(e.client.DaemonHost(), "unix://"))
	if err != nil {
		return false
	}
	stat, ok := at.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid() && stat.Uid != 0
}

// Close lets go of the engine.
func (e *Engine) Close() error { return e.client.Close() }

// loadHelper makes an image of the program, unless the engine has it, and
// returns its name.
func (e *Engine) loadHelper(ctx context.Context, binary string) (string, error) {
	if binary == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("making the helper's image: %w", err)
		}
		binary = self
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		return "", fmt.Errorf("making the helper's image: %w", err)
	}
	if err := static(text); err != nil {
		return "", &Error{
			Problem: "the helper container is made of telepresence itself, which must be a static Linux program for that",
			Way:     "run telepresence on Linux, or in a virtual machine; build it with CGO_ENABLED=0", Err: err,
		}
	}
	sum := sha256.Sum256(text)
	name := "telepresence-helper:" + hex.EncodeToString(sum[:6])
	if _, err := e.client.ImageInspect(ctx, name); err == nil {
		return name, nil
	}
	const path = "/telepresence"
	img, err := images.Build(images.Spec{
		Architecture: e.arch, Entrypoint: []string{path}, Labels: map[string]string{labelRole: roleHelper}, Hasty: true,
		Files: []images.File{{Path: path, Mode: 0o755, Content: text}},
	})
	if err != nil {
		return "", fmt.Errorf("making the helper's image: %w", err)
	}
	var archive bytes.Buffer
	if err := images.WriteArchive(&archive, name, img); err != nil {
		return "", fmt.Errorf("making the helper's image: %w", err)
	}
	answer, err := e.client.ImageLoad(ctx, &archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return "", fmt.Errorf("loading the helper's image into the engine: %w", err)
	}
	said, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil || !bytes.Contains(said, []byte("Loaded")) {
		return "", fmt.Errorf("loading the helper's image into the engine: %s: %w", bytes.TrimSpace(said), errors.Join(err, errNoImage))
	}
	return name, nil
}

// static tells why a program can't run in an image that holds nothing else.
func static(program []byte) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it needs shared libraries")
		}
	}
	return f.Close()
}

// containers are those with the labels, running or not.
func (e *Engine) containers(ctx context.Context, labels ...string) ([]container.Summary, error) {
	args := filters.NewArgs()
	for _, l := range labels {
		args.Add("label", l)
	}
	list, err := e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
	if err != nil {
		return nil, fmt.Errorf("listing the engine's containers: %w", err)
	}
	return list, nil
}

// signal sends a signal to the first process of the session's user container.
func (e *Engine) signal(session string, sig os.Signal) error {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return os.ErrInvalid
	}
	ctx, cancel := e.bounded()
	defer cancel()
	list, err := e.containers(ctx, labelSession+"="+session, labelRole+"="+roleUser)
	if err != nil {
		return err
	}
	for _, c := range list {
		if err := e.client.ContainerKill(ctx, c.ID, fmt.Sprint(int(number))); err != nil {
			return fmt.Errorf("sending signal %d to the container: %w", number, err)
		}
	}
	return nil
}

// clear removes what a session has made. It has its own time: the session's is
// over.
func (e *Engine) clear(session, helperImage string) error {
	ctx, cancel := e.bounded()
	defer cancel()
	list, err := e.containers(ctx, labelSession+"="+session)
	errs := []error{err, e.remove(ctx, list), e.clearVolumes(ctx, session)}
	if helperImage != "" {
		// Unless another session uses it.
		_, err := e.client.ImageRemove(ctx, helperImage, image.RemoveOptions{})
		if err != nil {
			e.log.Debug("the helper's image stays", "err", err)
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) remove(ctx context.Context, list []container.Summary) error {
	patient, cancel := context.WithTimeout(ctx, removeWithin)
	defer cancel()
	var errs []error
	for _, c := range list {
		err := removed(patient, func() error {
			return e.client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})
		})
		if err != nil && !strings.Contains(err.Error(), "already in progress") {
			errs = append(errs, fmt.Errorf("removing container %.12s: %w", c.ID, err))
		}
	}
	return errors.Join(errs...)
}

// SweepFiles removes the files with their environment that sessions on this
// machine have left which were killed. It needs no engine.
func SweepFiles() error {
	if err := sweepEnvDirs(os.TempDir()); err != nil {
		return fmt.Errorf("removing the environment of sessions that were killed: %w", err)
	}
	return nil
}

// Sweep removes what sessions have left in the engine that were killed: the user's
// containers whose helper, which ends with its session, is gone, and the volumes.
func (e *Engine) Sweep(ctx context.Context) error {
	all, err := e.containers(ctx, labelSession)
	if err != nil {
		return err
	}
	alive := func(session string) bool {
		return slices.ContainsFunc(all, func(c container.Summary) bool {
			return c.Labels[labelRole] == roleHelper && c.Labels[labelSession] == session && c.State == "running"
		})
	}
	left := slices.DeleteFunc(slices.Clone(all), func(c container.Summary) bool {
		return c.Labels[labelRole] == roleHelper || alive(c.Labels[labelSession])
	})
	if err := e.remove(ctx, left); err != nil {
		return err
	}
	if err := e.sweepVolumes(ctx); err != nil {
		return err
	}
	args := filters.NewArgs(filters.Arg("label", labelRole+"="+roleHelper))
	pictures, err := e.client.ImageList(ctx, image.ListOptions{Filters: args})
	if err != nil {
		return fmt.Errorf("listing the engine's images: %w", err)
	}
	for _, i := range pictures {
		if _, err := e.client.ImageRemove(ctx, i.ID, image.RemoveOptions{}); err != nil {
			e.log.Debug("a helper's image stays", "err", err)
		}
	}
	return nil
}
