package main

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/telepresence/telepresence/images"
	"github.com/telepresence/telepresence/pkg/imagecache/install"
	"github.com/telepresence/telepresence/pkg/imagecache/load"
)

// loadCacheImage has the cache's image loaded into the nodes, if the user wants
// that, and names it as its archive does. The folder is for what docker saves.
func (p *program) loadCacheImage(ctx context.Context, o *install.Options, folder string) error {
	s := &p.settings
	if !s.load && s.loadWith == "" {
		if strings.HasSuffix(o.Image, archiveSuffix) {
			return &usageError{"--image " + o.Image + " is a file, which nodes can't pull", "--load loads it into their store"}
		}
		return nil
	}
	file, err := archive(ctx, o.Image, images.CacheName, folder)
	if err != nil {
		return err
	}
	if o.Image, err = refOf(file); err != nil {
		return err
	}
	o.Load = func(ctx context.Context, nodes []corev1.Node, tell func(string)) error {
		if s.loadWith != "" {
			return load.Run(ctx, []load.Step{load.With(s.loadWith, file)}, file, tell)
		}
		steps, err := load.Plan(nodes, file)
		if err != nil {
			return err
		}
		return load.Run(ctx, steps, file, tell)
	}
	return nil
}
