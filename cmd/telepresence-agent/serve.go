package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/telepresence/telepresence/pkg/k8s/undo"
	"github.com/telepresence/telepresence/pkg/proxy"
)

// undoTime is how long the agent tries to put things back when its client is gone.
const undoTime = 2 * time.Minute

// errTerminated is what the client is told when the pod is deleted.
var errTerminated = errors.New("its pod is being deleted")

// standingPort is the session port of a standing agent, if not said otherwise.
const standingPort = 24817

// serve serves the session whose keys are mounted at proxy.AgentDir, or, standing, those that are enrolled.
func serve(ctx context.Context, args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	port := portFlag(fs)
	grace := fs.Duration("grace", time.Minute, "how long a session lives without its client")
	standing := fs.Bool("standing", false, "serve one enrolled session after the other, until the pod is deleted")
	dir := fs.String("keys", proxy.AgentDir, "directory of host_key, client.pub, token and undo.json")
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	limit := memoryLimit("/sys/fs/cgroup")
	limitMemory(limit)
	log := slog.New(slog.NewTextHandler(stderr, nil))
	cfg := proxy.ServerConfig{
		Port: uint16(*port), Grace: *grace, Standing: *standing, Version: version, Log: log, Buffer: bufferSize(limit),
	}
	if !*standing {
		if err := readKeys(*dir, &cfg); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := onSignal(func() { cancel(errTerminated) })
	defer stop()
	log.Info("serving", "version", version, "port", uint16(*port), "grace", *grace)
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

// portFlag is the flag that every command has by which agents of one network find theirs.
func portFlag(fs *flag.FlagSet) *portValue {
	p := portValue(standingPort)
	fs.Var(&p, "port", "session port")
	return &p
}

// portValue is a port as a flag.
type portValue uint16

// String returns the port in digits.
func (p *portValue) String() string { return strconv.Itoa(int(*p)) }

// Set parses a port.
func (p *portValue) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return errors.New("a port is a number from 1 to 65535")
	}
	*p = portValue(n)
	return nil
}

// readKeys reads the agent's part of the session's keys.
func readKeys(dir string, cfg *proxy.ServerConfig) error {
	for name, value := range map[string]*[]byte{"host_key": &cfg.HostKey, "client.pub": &cfg.ClientPublic, "token": &cfg.Token} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		*value = text
	}
	cfg.Token = bytes.TrimSpace(cfg.Token)
	return nil
}

// onSignal calls f at the first SIGTERM or SIGINT; the returned function ends that.
func onSignal(f func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	var wg sync.WaitGroup
	ended := make(chan struct{})
	wg.Go(func() {
		select {
		case <-signals:
			f()
		case <-ended:
		}
		signal.Stop(signals)
	})
	return func() {
		close(ended)
		wg.Wait()
	}
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
