package install

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/telepresence/telepresence/pkg/imagecache"
)

// NodeStatus is what one node tells, or why it doesn't.
type NodeStatus struct {
	imagecache.Status
	Ready   bool   `json:"ready"`
	Problem string `json:"problem,omitempty"`
}

// Report is the cache as it is.
type Report struct {
	Nodes   []NodeStatus      `json:"nodes"`
	Images  map[string]string `json:"images"` // pinned references, by key
	Expires time.Time         `json:"certificateExpires"`
}

// How many nodes are asked at once: each may take its time.
const atOnce = 16

// Status asks every node. A node that doesn't answer is in the report all the
// same.
func (c *Cache) Status(ctx context.Context) (Report, error) {
	pods, err := c.client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: label + "=" + name})
	if err != nil {
		return Report{}, fmt.Errorf("listing the cache's nodes: %w", err)
	}
	if len(pods.Items) == 0 {
		return Report{}, errNotEnabled
	}
	r := Report{Nodes: make([]NodeStatus, len(pods.Items))}
	var asking errgroup.Group
	asking.SetLimit(atOnce)
	for i, p := range pods.Items {
		asking.Go(func() error {
			s := &r.Nodes[i]
			if err := c.ask(ctx, p.Name, &s.Status); err != nil {
				s.Node, s.Problem = p.Spec.NodeName, err.Error()
			} else {
				s.Ready = true
			}
			return nil
		})
	}
	_ = asking.Wait() // a node's trouble is in the report
	slices.SortFunc(r.Nodes, func(a, b NodeStatus) int { return strings.Compare(a.Node, b.Node) })
	if images, err := c.client.CoreV1().ConfigMaps(Namespace).Get(ctx, imagesName, metav1.GetOptions{}); err == nil {
		r.Images = images.Data
	}
	if keys, err := c.client.CoreV1().Secrets(Namespace).Get(ctx, secretName, metav1.GetOptions{}); err == nil {
		r.Expires, _ = imagecache.Certificates{Cert: keys.Data[imagecache.CertFile]}.Expires()
	}
	return r, nil
}

func (c *Cache) ask(ctx context.Context, pod string, s *imagecache.Status) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, done := c.nodeClient(pod)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/status", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(s)
}
