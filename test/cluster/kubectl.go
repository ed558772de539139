package main

import (
	"context"
	"fmt"
	"time"
)

// kubectl runs kubectl as the cluster's administrator.
func (c *cluster) kubectl(ctx context.Context, input string, args ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	args = append([]string{"--kubeconfig", c.path("admin.kubeconfig"), "--cache-dir", c.path("kubectl-cache")}, args...)
	return commandInput(input, c.path("bin", "kubectl"), args...)
}

// apply makes objects be as written.
func (c *cluster) apply(ctx context.Context, objects string) error {
	return c.eventually(ctx, "the API server", func() error {
		return c.kubectl(ctx, objects, "apply", "--server-side", "--force-conflicts", "--filename=-")
	})
}

// eventually tries until it succeeds, the context ends, or patience does; then
// the last error tells what is missing.
func (c *cluster) eventually(ctx context.Context, what string, try func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("waiting for %s (logs are in %s): %w", what, c.path("*", "log"), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
}
