package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/telepresence/telepresence/pkg/proxy"
)

// ready says whether the pod is ready.
func ready(ctx context.Context, args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("ready", flag.ContinueOnError)
	port := fs.Uint("port", 0, "session port")
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	if *port == 0 || *port > 0xffff {
		return fmt.Errorf("%w: --port must be 1 to 65535", errUsage)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return proxy.Ready(ctx, uint16(*port))
}
