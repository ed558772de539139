// Command telepresence-imagecache is one node's part of the image cache: a
// registry for the node's own container runtime, and a peer of the other nodes.
// A DaemonSet runs it; see docs/image-cache.md.
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
	"strings"
	"syscall"

	"github.com/telepresence/telepresence/pkg/imagecache"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

// options are the command line's.
type options struct {
	node, namespace, service string
	port, peerPort           int
	dir, certs, token        string
	limit                    int64
	repos                    []string
}

func run(args []string, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "telepresence-imagecache:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, o, slog.New(slog.NewTextHandler(stderr, nil))); err != nil {
		fmt.Fprintln(stderr, "telepresence-imagecache:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("telepresence-imagecache", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.node, "node", os.Getenv("NODE_NAME"), "this node's `name`")
	fs.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "the cache's `namespace`")
	fs.StringVar(&o.service, "service", "telepresence-imagecache", "the `service` whose endpoints are the nodes")
	fs.IntVar(&o.port, "port", imagecache.DefaultPort, "the registry's `port`, on the loopback")
	fs.IntVar(&o.peerPort, "peer-port", imagecache.DefaultPeerPort, "the `port` for other nodes")
	fs.StringVar(&o.dir, "dir", "/cache", "the `folder` that blobs are kept in")
	fs.StringVar(&o.certs, "certs", "/certs", "the `folder` with "+imagecache.AuthorityFile+", "+imagecache.CertFile+" and "+imagecache.KeyFile)
	fs.StringVar(&o.token, "token", "/certs/token", "the `file` with the token that writing needs")
	fs.Int64Var(&o.limit, "limit", imagecache.DefaultLimit, "how many `bytes` are kept")
	fs.Func("repo", "a `repository` whose images are cached, HOST/NAME; may be repeated", func(text string) error {
		o.repos = append(o.repos, text)
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.node == "" || o.namespace == "" {
		return o, errors.New("--node and --namespace are needed")
	}
	return o, nil
}

// readToken is the token in a file, without white space round it.
func readToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
