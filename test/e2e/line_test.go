package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"
)

// A line is the user's way to the cluster, or to docker, which can be cut.
type line struct {
	listener net.Listener
	network  string // of the target
	target   string // the API server
	all      sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	cut   bool
	conns map[net.Conn]bool
}

// lay lets what the user does from now on go over a line.
func (s *script) lay(ts *testscript.TestScript, args []string) (string, error) {
	if len(args) != 0 || s.line != nil {
		return "", errors.New("usage: line, once")
	}
	config, err := clientcmd.LoadFromFile(ts.Getenv("KUBECONFIG"))
	if err != nil {
		return "", err
	}
	l := &line{network: "tcp", conns: map[net.Conn]bool{}}
	if l.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return "", err
	}
	s.line = l
	l.all.Go(l.accept)
	for _, cluster := range config.Clusters {
		server, err := url.Parse(cluster.Server)
		if err != nil {
			return "", err
		}
		if cluster.TLSServerName == "" {
			cluster.TLSServerName = server.Hostname()
		}
		l.target = server.Host
		if server.Port() == "" {
			l.target = net.JoinHostPort(server.Hostname(), "443")
		}
		server.Host = l.listener.Addr().String()
		cluster.Server = server.String()
	}
	path := filepath.Join(s.folder, "line.kubeconfig")
	ts.Setenv("KUBECONFIG", path)
	return "", clientcmd.WriteToFile(*config, path)
}

// cutLine cuts the line, for some time or until it is mended.
func (s *script) cutLine(_ *testscript.TestScript, args []string) (string, error) {
	if s.line == nil || len(args) > 1 {
		return "", errors.New("usage: cut [DURATION], after line")
	}
	s.line.set(true)
	if len(args) == 0 {
		return "", nil
	}
	duration, err := time.ParseDuration(args[0])
	if err != nil {
		return "", err
	}
	s.line.all.Go(func() {
		timer := time.NewTimer(duration)
		defer timer.Stop()
		<-timer.C
		s.line.set(false)
	})
	return "", nil
}

// mend puts the line together again.
func (s *script) mend(_ *testscript.TestScript, args []string) (string, error) {
	if s.line == nil || len(args) != 0 {
		return "", errors.New("usage: mend, after line")
	}
	s.line.set(false)
	return "", nil
}

// set cuts the line or mends it. What goes over it when it is cut breaks.
func (l *line) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	if cut {
		for conn := range l.conns {
			_ = conn.Close()
		}
	}
}

// end takes the line away.
func (l *line) end() {
	if l == nil {
		return
	}
	_ = l.listener.Close()
	l.set(true)
	l.all.Wait()
}

func (l *line) accept() {
	for {
		here, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.all.Go(func() { _ = l.carry(here) })
	}
}

// carry joins one connection to the target, unless the line is cut.
func (l *line) carry(here net.Conn) error {
	defer func() { _ = here.Close() }()
	there, err := net.Dial(l.network, l.target)
	if err != nil {
		return err
	}
	defer func() { _ = there.Close() }()
	if !l.hold(here, there) {
		return fmt.Errorf("the line to %s is cut", l.target)
	}
	defer l.forget(here, there)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{here, there}, {there, here}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			// Who calls docker may be done with writing, and still read.
			if half, ok := way[0].(interface{ CloseWrite() error }); ok && l.network == "unix" && half.CloseWrite() == nil {
				return
			}
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	both.Wait()
	return nil
}

// hold notes connections that a cut has to break; on a cut line there are none.
func (l *line) hold(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	for _, conn := range conns {
		l.conns[conn] = true
	}
	return true
}

func (l *line) forget(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		delete(l.conns, conn)
	}
}
