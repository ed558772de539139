// Package mount shows the files of a pod on this machine: as a FUSE file
// system over the tunnel, or, where there is no FUSE, as a copy kept in sync.
//
// A system call on the mounted file system goes this way:
//
//  1. the kernel, unless it may still answer from what it was told (fs.go says for how long)
//  2. fs.go, file.go: nodes and open files
//  3. cache.go: attributes, listings and small files' content seen within the validity
//  4. ahead.go: what will be asked for next is fetched before it is
//  5. remote.go: requests to the SFTP server, many at once, each with a time limit
//
// The package doesn't know what carries the SFTP session.
package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Config says what FUSE mounts, and where.
type Config struct {
	// SFTP opens an SFTP session; it is called again when one broke. ctx
	// bounds the opening only. The mount closes what it returns, and Close
	// must unblock its Read.
	SFTP func(ctx context.Context) (io.ReadWriteCloser, error)
	// Root is the remote directory to show; empty is "/".
	Root string
	// Mountpoint is an existing directory.
	Mountpoint string
	// UID and GID are those of the pod's process. Its files are shown as
	// those of the user of this process, and the other way round.
	UID, GID int
	// Validity is how long what was seen is taken to be still so; 0 is a
	// second.
	Validity time.Duration
	// Timeout is how long a request waits for its answer before it fails
	// with EIO; 0 is ten seconds.
	Timeout time.Duration
	// Log takes what goes wrong; nil for silence.
	Log *slog.Logger
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Validity == 0 {
		c.Validity = defaultValidity
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

const (
	defaultValidity = time.Second
	defaultTimeout  = 10 * time.Second
	// closeGrace is how long Close waits for the kernel to let go of a mount
	// that somebody still uses.
	closeGrace = 2 * time.Second
)

// Mount is a mounted file system. Its methods are safe for concurrent use.
type Mount struct {
	mountpoint string
	device     uint32 // minor number of the mount; 0 if unknown
	server     *fuse.Server
	remote     *remote
	log        *slog.Logger

	serving   sync.WaitGroup // the loop that answers the kernel
	closeOnce sync.Once
	closeErr  error
}

// FUSE mounts the remote files at cfg.Mountpoint: directly for root (other
// users may then use it too), by fusermount3 for anybody else. ctx bounds the
// mounting, not the mount's life, which Close ends. Where this machine has no
// FUSE, the error is ErrNoFUSE.
func FUSE(ctx context.Context, cfg Config) (*Mount, error) {
	cfg = cfg.withDefaults()
	if err := available(); err != nil {
		return nil, err
	}
	r := newRemote(cfg)
	if err := r.connect(ctx); err != nil {
		r.close()
		return nil, fmt.Errorf("opening the pod's files: %w", err)
	}
	fsys := newFileSystem(cfg, r)
	opts := mountOptions(cfg)
	server, err := mountNow(fs.NewNodeFS(fsys.root(), opts), cfg.Mountpoint, &opts.MountOptions)
	if err != nil {
		r.close()
		return nil, fmt.Errorf("mounting at %s: %w", cfg.Mountpoint, err)
	}
	m := &Mount{mountpoint: cfg.Mountpoint, server: server, remote: r, log: cfg.Log}
	m.serving.Go(server.Serve)
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting at %s: %w", cfg.Mountpoint, err), m.Close())
	}
	if m.device, err = minorOf(cfg.Mountpoint); err != nil {
		return nil, errors.Join(fmt.Errorf("looking at %s: %w", cfg.Mountpoint, err), m.Close())
	}
	return m, nil
}

// mountOptions are FUSE's for cfg.
func mountOptions(cfg Config) *fs.Options {
	root := os.Geteuid() == 0
	return &fs.Options{
		MountOptions: fuse.MountOptions{
			AllowOther:        root,
			DirectMountStrict: root,
			FsName:            "telepresence",
			Name:              "telepresence",
			MaxBackground:     128,
			MaxWrite:          1 << 20,
			MaxReadAhead:      1 << 20,
			DisableXAttrs:     true,
			Logger:            slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		},
		NullPermissions: true,
		Logger:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
}

// Close unmounts, whether or not somebody still uses the files: calls in
// flight fail with EIO. It waits for everything the mount started, and may be
// called more than once.
func (m *Mount) Close() error {
	m.closeOnce.Do(func() {
		m.remote.close()
		m.closeErr = m.unmount()
	})
	return m.closeErr
}

// unmountServer unmounts, and aborts the connection where the kernel keeps it
// although the mount is gone here: another session's sandbox, say, has a copy of
// it among its own mounts, and the library waits for as long as that lives. The
// waiter ends with the library's wait: by the abort, or with that copy.
func (m *Mount) unmountServer() error {
	unmounted := make(chan error, 1)
	var waiter sync.WaitGroup
	waiter.Go(func() { unmounted <- m.server.Unmount() })
	for range 2 {
		select {
		case err := <-unmounted:
			return err
		case <-time.After(closeGrace):
			abort(m.device)
		}
	}
	return nil
}

// unmount takes the mount away politely, then forcibly.
func (m *Mount) unmount() error {
	err := m.unmountServer()
	if err != nil {
		m.log.Info("the mount is still in use: unmounting lazily", "mountpoint", m.mountpoint, "err", err)
		err = detach(m.mountpoint)
		abort(m.device)
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", m.mountpoint, err)
	}
	ended := make(chan struct{})
	var waiter sync.WaitGroup
	waiter.Go(func() { m.serving.Wait(); close(ended) })
	select {
	case <-ended:
	case <-time.After(closeGrace):
		// Only a process that holds a file of the detached mount keeps the
		// loop alive; the kernel ends it with that process or with ours.
		m.log.Warn("the kernel still holds the mount", "mountpoint", m.mountpoint)
	}
	return nil
}
