package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/telepresence/telepresence/pkg/k8s/undo"
	"github.com/telepresence/telepresence/pkg/proxy"
)

// undoTime is how long the agent tries to put things back when its client is gone.
const undoTime = 2 * time.Minute

// errTerminated is what the client is told when the pod is deleted.
var errTerminated = errors.New("its pod is being deleted")

// serve serves the session whose keys are mounted at proxy.AgentDir.
func serve(ctx context.Context, args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	port := fs.Uint("port", 0, "session port")
	grace := fs.Duration("grace", time.Minute, "how long to live without a client")
	standing := fs.Bool("standing", false, "live on without a client, and after its goodbye")
	dir := fs.String("keys", proxy.AgentDir, "directory of host_key, client.pub, token and undo.json")
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	if *port == 0 || *port > 0xffff {
		return fmt.Errorf("%w: --port must be 1 to 65535", errUsage)
	}
	limitMemory(memoryLimit("/sys/fs/cgroup"))
	log := slog.New(slog.NewTextHandler(stderr, nil))
	cfg := proxy.ServerConfig{
		Port: uint16(*port), Grace: *grace, Standing: *standing, Version: version, Log: log, Buffer: bufferSize(memoryLimit("/sys/fs/cgroup")),
	}
	for name, value := range map[string]*[]byte{"host_key": &cfg.HostKey, "client.pub": &cfg.ClientPublic, "token": &cfg.Token} {
		text, err := os.ReadFile(filepath.Join(*dir, name))
		if err != nil {
			return err
		}
		*value = []byte(strings.TrimSpace(string(text)) + "\n")
	}
	cfg.Token = []byte(strings.TrimSpace(string(cfg.Token)))

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := onSignal(func() { cancel(errTerminated) })
	defer stop()
	log.Info("serving", "version", version, "port", *port, "grace", *grace)
	err := proxy.Serve(ctx, cfg)
	switch {
	case errors.Is(err, proxy.ErrNoClient):
		log.Warn("the client is gone", "reason", err)
		return restore(ctx, filepath.Join(*dir, "undo.json"), log)
	case errors.Is(err, errTerminated):
		log.Info("ended", "reason", err)
		return nil
	}
	return err
}

// onSignal calls f at the first SIGTERM or SIGINT; the returned function ends that.
func onSignal(f func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	return waiter(func(ended <-chan struct{}) {
		select {
		case <-signals:
			f()
		case <-ended:
		}
		signal.Stop(signals)
	})
}

// restore puts the originals back as the undo record says. That the pod's service account may not do so is the usual
// case and no error: the client's next session, or somebody's "telepresence leave", does it then.
func restore(ctx context.Context, path string, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, undoTime)
	defer cancel()
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		log.Info("there is no undo record")
		return nil
	}
	if err != nil {
		return err
	}
	record, err := undo.Parse(text)
	if err != nil {
		return err
	}
	do, err := undo.InCluster()
	if err == nil {
		err = undo.Apply(ctx, do, record.Restore)
	}
	if err != nil {
		log.Warn("not restored", "workload", record.Workload, "reason", err)
		return nil
	}
	log.Info("restored", "workload", record.Workload)
	return nil
}
