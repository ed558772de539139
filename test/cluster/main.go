// Command cluster is a real Kubernetes on one Linux machine, made for tests:
// one control plane and any number of nodes, each in namespaces of its own
// (network, mounts, processes), joined by a bridge. Everything it keeps is in
// one folder, and everything it starts ends with two kinds of process, so that
// nothing is left behind after stop.
//
// It needs root (it asks sudo for it), Go to build the components, and a few
// of the distribution's packages, which setup installs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `cluster runs a real Kubernetes on this machine, for tests

  cluster setup                             install packages, build components
  cluster start [--nodes N]                 start it, or what of it does not run (default 2 nodes)
  cluster add                               start one more node
  cluster kill NODE                         cut a node's power
  cluster exec NODE COMMAND [ARGUMENT…]     run a command on a node, or on "control"
  cluster load TAR…                         load images into every node
  cluster pull IMAGE NODE…                  have nodes pull an image at once; prints how many seconds each took
  cluster kubeconfig admin                  print a kubeconfig that may do everything
  cluster kubeconfig edit NAMESPACE [USER]  print one with the edit role in one namespace only
  cluster bin                               print the folder with kubectl and ctr
  cluster stop                              end it and leave nothing behind

environment:
  CLUSTER_STATE  the folder that holds all of it (.cluster at the repository's top);
                 clusters in different folders run side by side
  CLUSTER_CACHE  where built components are kept between runs (the user's cache folder)
`

// errUsage is a command line that makes no sense.
var errUsage = errors.New("wrong arguments; see cluster help")

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h":
		fmt.Print(usage)
	case args[0] == "init":
		err = initMain()
	default:
		err = dispatch(ctx, args[0], args[1:])
	}
	var status exitStatus
	switch {
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "cluster:", err)
		return 2
	case err != nil:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		return 1
	}
	return 0
}

// dispatch runs one sub-command. What only reads runs as whoever asks; what
// changes the machine is handed to root, after the components were built as
// the user, whose Go and caches these are.
func dispatch(ctx context.Context, command string, args []string) error {
	c, err := open()
	if err != nil {
		return err
	}
	switch command {
	case "setup":
		return c.setup(ctx)
	case "bin":
		_, err := fmt.Println(c.path("bin"))
		return err
	case "start":
		if err := c.build(ctx); err != nil {
			return err
		}
	}
	if os.Geteuid() != 0 {
		return c.asRoot(command, args)
	}
	switch command {
	case "exec":
		return c.execute(args)
	case "pull":
		if len(args) < 2 {
			return errUsage
		}
		return c.pull(ctx, args[0], args[1:])
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return c.change(ctx, command, args)
}

// change runs one of the sub-commands that need the cluster to themselves.
func (c *cluster) change(ctx context.Context, command string, args []string) error {
	switch command {
	case "start":
		flags := flag.NewFlagSet("start", flag.ContinueOnError)
		nodes := flags.Int("nodes", 2, "how many nodes")
		if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
			return errUsage
		}
		return c.start(ctx, *nodes)
	case "add":
		return c.add(ctx)
	case "kill":
		if len(args) != 1 || args[0] == control {
			return errUsage
		}
		return c.kill(args[0])
	case "load":
		if len(args) == 0 {
			return errUsage
		}
		return c.load(ctx, args)
	case "kubeconfig":
		text, err := c.kubeconfig(ctx, args)
		if err == nil {
			_, err = fmt.Print(text)
		}
		return err
	case "stop":
		return c.stop(ctx)
	}
	return errUsage
}

// say tells whoever started the cluster what is being done.
func say(format string, args ...any) {
	fmt.Fprintln(os.Stderr, "cluster: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
}
