package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/telepresence/telepresence/pkg/imagecache"
	"github.com/telepresence/telepresence/pkg/imagecache/members"
)

// How long requests that are under way have to end when the node stops.
const drain = 5 * time.Second

// serve runs the node until ctx ends.
func serve(ctx context.Context, o options, log *slog.Logger) error {
	token, err := readToken(o.token)
	if err != nil {
		return err
	}
	store, err := imagecache.OpenStore(o.dir, o.limit)
	if err != nil {
		return err
	}
	known, err := members.InCluster(o.namespace, o.service, log)
	if err != nil {
		return err
	}
	peers, err := newPeers(o.node, o.certs, known.Nodes, log)
	if err != nil {
		return err
	}
	origin := imagecache.NewRegistryOrigin(o.repos, http.DefaultTransport)
	node := imagecache.New(imagecache.Config{Name: o.node, Store: store, Origin: origin, Peers: peers.all, Log: log})
	local := http.NewServeMux()
	local.Handle("/v2/", imagecache.RegistryHandler(node, token, log))
	local.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	local.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(node.Status())
	})
	local.Handle("GET /metrics", imagecache.MetricsHandler(node))

	loopback, others, err := listen(ctx, o)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return known.Run(ctx) })
	group.Go(func() error { return peers.follow(ctx) })
	for _, l := range loopback {
		group.Go(func() error { return serveOn(ctx, l, local) })
	}
	group.Go(func() error {
		return serveOn(ctx, tls.NewListener(others, peers.serverTLS()), imagecache.PeerHandler(node, log))
	})
	log.Info("serving", "node", o.node, "registry", o.port, "peers", o.peerPort, "repositories", o.repos)
	return errors.Join(group.Wait(), node.Close())
}

// listen takes the ports: the registry's on the loopback of each kind, and the
// peers'. It takes all, or none.
func listen(ctx context.Context, o options) (loopback []net.Listener, others net.Listener, err error) {
	var taken []net.Listener
	at := func(host string, port int) (net.Listener, error) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			taken = append(taken, l)
		}
		return l, err
	}
	defer func() {
		for _, l := range taken {
			if err != nil {
				_ = l.Close()
			}
		}
	}()
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := at(host, o.port)
		if err != nil && host == "::1" { // a node without IPv6
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("listening for the runtime: %w", err)
		}
		loopback = append(loopback, l)
	}
	if others, err = at("", o.peerPort); err != nil {
		return nil, nil, fmt.Errorf("listening for peers: %w", err)
	}
	return loopback, others, nil
}

// serveOn serves one listener until ctx ends.
func serveOn(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			return server.Close()
		}
		return nil
	})
	return group.Wait()
}
