package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"time"

	"github.com/telepresence/telepresence/pkg/imagecache"
)

// How often the certificates are looked at: the kubelet renews their files
// about a minute after the Secret has changed.
const lookAtCerts = 30 * time.Second

// peers are the other nodes, with the certificates as they are now. Safe for
// concurrent use.
type peers struct {
	self, dir string
	nodes     func() map[string]string
	log       *slog.Logger

	mu    sync.Mutex // guards what follows
	certs imagecache.Certificates
	tls   *tls.Config
	made  map[string]imagecache.Peer // by address
}

func newPeers(self, dir string, nodes func() map[string]string, log *slog.Logger) (*peers, error) {
	p := &peers{self: self, dir: dir, nodes: nodes, log: log}
	return p, p.load()
}

// load reads the certificates, and forgets the connections made with others.
func (p *peers) load() error {
	certs, err := imagecache.ReadCertificates(p.dir)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if certs.Equal(p.certs) {
		return nil
	}
	config, err := certs.TLS()
	if err != nil {
		return err
	}
	p.certs, p.tls, p.made = certs, config, make(map[string]imagecache.Peer)
	p.log.Info("certificates loaded")
	return nil
}

// follow loads the certificates again when they change, until ctx ends.
func (p *peers) follow(ctx context.Context) error {
	tick := time.NewTicker(lookAtCerts)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := p.load(); err != nil {
				p.log.Error("reading the certificates again", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// all are the live peers by their nodes' names.
func (p *peers) all() map[string]imagecache.Peer {
	nodes := p.nodes()
	p.mu.Lock()
	defer p.mu.Unlock()
	made := make(map[string]imagecache.Peer, len(nodes)) // without those who are gone
	list := make(map[string]imagecache.Peer, len(nodes))
	for name, address := range nodes {
		if name == p.self {
			continue
		}
		made[address] = p.made[address]
		if made[address] == nil {
			made[address] = imagecache.NewPeer(address, p.tls)
		}
		list[name] = made[address]
	}
	p.made = made
	return list
}

// serverTLS takes each connection with the certificates as they are then.
func (p *peers) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.tls, nil
		},
	}
}
