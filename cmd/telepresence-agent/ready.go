package main

import (
	"context"
	"flag"
	"io"
	"time"

	"github.com/telepresence/telepresence/pkg/proxy"
)

// ready says whether the pod is ready.
func ready(ctx context.Context, args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("ready", flag.ContinueOnError)
	port := portFlag(fs)
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return proxy.Ready(ctx, uint16(*port))
}

// enroll hands what it reads to the standing agent of this container: whoever may run a program here may have a session.
func enroll(ctx context.Context, args []string, stdin io.Reader, stderr io.Writer) error {
	fs := flag.NewFlagSet("enroll", flag.ContinueOnError)
	port := portFlag(fs)
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	message, err := io.ReadAll(io.LimitReader(stdin, 1<<20))
	if err != nil {
		return err
	}
	return proxy.Enroll(ctx, uint16(*port), message)
}
