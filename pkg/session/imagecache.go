package session

import (
	"context"
	"fmt"
	"net"

	"github.com/telepresence/telepresence/pkg/imagecache/install"
	"github.com/telepresence/telepresence/pkg/k8s"
	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// useImageCache names the agent's image so that the node gets it from its
// neighbours, where the cluster has the cache, and the cache the image. Without
// it the image comes from where it always does.
func (s *session) useImageCache(ctx context.Context) {
	if !s.o.ImageCache {
		return
	}
	image, err := ImageCache(s.cluster).Lookup(ctx, s.request.AgentImage)
	if err != nil {
		s.ev.Warn(fmt.Sprintf("the proxy image comes from its registry: %v", err))
		return
	}
	s.request.AgentImage = image
}

// ImageCache is the image cache of a cluster.
func ImageCache(c *k8s.Cluster) *install.Cache {
	return install.New(c.Client(), func(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error) {
		return c.In(namespace).PortForward(ctx, pod, plan.Port(port))
	})
}
