package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/telepresence/telepresence/images"
	"github.com/telepresence/telepresence/pkg/imagecache/install"
	"github.com/telepresence/telepresence/pkg/k8s"
	"github.com/telepresence/telepresence/pkg/session"
)

// imageCache is what these sub-commands want of a cluster's image cache.
type imageCache interface {
	StepAside(ctx context.Context) error
	Enable(ctx context.Context, o install.Options, tell func(string)) error
	Disable(ctx context.Context) error
	Push(ctx context.Context, ref string, index v1.ImageIndex, tell func(string)) error
	Status(ctx context.Context) (install.Report, error)
}

// connectCache is how a program reaches the cache.
func connectCache(cfg k8s.Config) (imageCache, error) {
	c, err := k8s.Connect(cfg)
	if err != nil {
		return nil, err
	}
	return session.ImageCache(c), nil
}

func (p *program) newImageCacheCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "imagecache",
		Short: "Let the cluster's nodes take the proxy's image from each other",
		RunE: func(c *cobra.Command, _ []string) error {
			return &usageError{"imagecache wants a sub-command: enable, status, push or disable", "see " + c.CommandPath() + " --help"}
		},
	}
	below := func(use, short string, run func(ctx context.Context, cache imageCache, args []string) error) *cobra.Command {
		sub := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
			cache, err := p.connectCache(p.clusterConfig())
			if err != nil {
				return err
			}
			return run(c.Context(), cache, args)
		}}
		c.AddCommand(sub)
		return sub
	}
	below("enable", "Install the image cache, or renew it", p.runCacheEnable)
	below("status", "Show what each node holds, and where it got it", p.runCacheStatus)
	below("disable", "Take the image cache away, and leave nothing of it", p.runCacheDisable)
	push := below("push [IMAGE | FILE.tar]", "Send an image to one node, from which the others take it", p.runCachePush)
	push.Long = `Send an image to one node, from which the others take it.

IMAGE is taken from docker, FILE.tar is what "docker save" or "make image"
writes. Without either it is the telepresence-agent.tar beside this program.`
	push.Args = func(c *cobra.Command, args []string) error { return noStray(c, args[min(1, len(args)):]) }
	return c
}

// cacheNeeds is what is asked before the cluster is changed.
const cacheNeeds = `the image cache is a DaemonSet in namespace ` + install.Namespace + ` (made for it), with a pod on every node
these pods use the host's network, so the namespace's pod security level is "privileged"`

func (p *program) runCacheEnable(ctx context.Context, cache imageCache, _ []string) error {
	switch err := cache.StepAside(ctx); {
	case errors.Is(err, install.ErrOther):
		p.ui.Tell(err.Error() + ": there is nothing to do")
		return nil
	case err != nil:
		return err
	}
	s := &p.settings
	o := install.Options{Image: s.cacheImage, Repos: s.cacheRepos, PullNever: s.pullNever}
	folder, err := os.MkdirTemp("", "telepresence-image-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := p.loadCacheImage(ctx, &o, folder); err != nil {
		return err
	}
	if !s.yes {
		p.ui.Tell(cacheNeeds)
		if !p.ui.ask(p.streams.in, "install it?") {
			return &usageError{"nothing was done", "--yes does it without asking"}
		}
	}
	agent := p.agentImage()
	if o.Image == "" {
		o.Image = images.CacheRef(p.variable("TELEPRESENCE_REGISTRY"), cmp.Or(p.variable("TELEPRESENCE_VERSION"), version))
	}
	if len(o.Repos) == 0 {
		o.Repos = []string{agent[:strings.LastIndexByte(agent, ':')]}
	}
	if err := cache.Enable(ctx, o, p.ui.Waiting); err != nil {
		return err
	}
	p.ui.Tell("the image cache is ready on every node, for " + strings.Join(o.Repos, ", "))
	return nil
}

func (p *program) runCacheDisable(ctx context.Context, cache imageCache, _ []string) error {
	p.ui.Waiting("taking the image cache away")
	if err := cache.Disable(ctx); err != nil {
		return err
	}
	p.ui.Tell("the image cache is gone")
	return nil
}

func (p *program) runCachePush(ctx context.Context, cache imageCache, args []string) error {
	folder, err := os.MkdirTemp("", "telepresence-image-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	file, err := archive(ctx, strings.Join(args, ""), images.AgentName, folder)
	if err != nil {
		return err
	}
	ref, err := refOf(file)
	if err != nil {
		return err
	}
	index, err := indexOf(file, folder)
	if err != nil {
		return err
	}
	if err := cache.Push(ctx, ref, index, p.ui.Waiting); err != nil {
		return err
	}
	p.ui.Tell("the image cache has " + ref)
	return nil
}
