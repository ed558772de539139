package main

import (
	"context"

	"github.com/telepresence/telepresence/pkg/k8s"
	"github.com/telepresence/telepresence/pkg/k8s/undo"
)

// cluster is what the sub-commands and completion want of one.
type cluster interface {
	Namespace() string
	Sessions(ctx context.Context, allNamespaces bool) ([]k8s.Session, error)
	Restore(ctx context.Context, record undo.Record, tell k8s.Tell) error
	Namespaces(ctx context.Context) ([]string, error)
	Targets(ctx context.Context, prefix string) ([]string, error)
}

// clusterConfig is which cluster the options name.
func (p *program) clusterConfig() k8s.Config {
	s := p.settings
	return k8s.Config{Context: s.Context, Namespace: s.Namespace, As: s.As, AsGroups: s.AsGroups}
}

// connectCluster is how a program reaches a cluster; tests put another in its
// place.
func connectCluster(cfg k8s.Config) (cluster, error) {
	c, err := k8s.Connect(cfg)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// currentContext is the kubeconfig's, or empty if there is none.
func currentContext() string {
	c, err := k8s.Connect(k8s.Config{})
	if err != nil {
		return ""
	}
	return c.Context()
}
