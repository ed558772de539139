package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pull has nodes pull an image, all at the same moment and in the way their
// kubelets do (the CRI's PullImage), and prints how many seconds each took. A
// node that can't is an error when all the others have it.
func (c *cluster) pull(ctx context.Context, image string, nodes []string) error {
	var all sync.WaitGroup
	var mu sync.Mutex // guards errs, and keeps the lines apart
	var errs []error
	begin := make(chan struct{})
	for _, node := range nodes {
		client, err := c.images(node)
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		all.Go(func() {
			<-begin
			began := time.Now()
			_, err := runtime.NewImageServiceClient(client).PullImage(ctx, &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: image}})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("%s can't pull %s: %w", node, image, err))
				return
			}
			fmt.Printf("%s %.3f\n", node, time.Since(began).Seconds())
		})
	}
	close(begin)
	all.Wait()
	return errors.Join(errs...)
}

// images connects to a node's containerd, which listens in the node's own file
// system. The caller closes it.
func (c *cluster) images(node string) (*grpc.ClientConn, error) {
	pid := c.pid(node)
	if pid == 0 {
		return nil, fmt.Errorf("machine %s is off", node)
	}
	conn, err := grpc.NewClient(fmt.Sprintf("unix:///proc/%d/root/run/containerd/containerd.sock", pid),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connecting to %s's container runtime: %w", node, err)
	}
	conn.Connect()
	return conn, nil
}
