// Command origin is a registry for benchmarks: it serves image archives, one
// repository and one tag each, over plain HTTP. Run it as
//
//	origin ADDRESS REPOSITORY FILE.tar…
//
// It prints each archive's digest when it serves, and goes on until it is
// told to end.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "origin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) < 3 {
		return errors.New("usage: origin ADDRESS REPOSITORY FILE.tar…")
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	server := &http.Server{Handler: registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))), ReadHeaderTimeout: 10 * time.Second}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	group.Go(func() error {
		for i, file := range args[2:] {
			digest, err := add(ctx, args[0]+"/"+args[1]+":"+strconv.Itoa(i+1), file)
			if err == nil {
				_, err = fmt.Fprintln(stdout, digest)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// add gives the registry an archive's image.
func add(ctx context.Context, ref, file string) (string, error) {
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return "", fmt.Errorf("reading image archive %s: %w", file, err)
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return "", err
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("adding %s: %w", file, err)
	}
	digest, err := img.Digest()
	return digest.String(), err
}
