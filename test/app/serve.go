package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// A server is what serve was asked for.
type server struct {
	name           string // what it calls itself
	host           string // the address it listens on; empty: all
	http, tcp, udp []string
	load           *load
}

// parseServe reads serve's options, over those of the environment.
func parseServe(args []string, getenv func(string) string) (*server, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	either := func(value, otherwise string) string {
		if value != "" {
			return value
		}
		return otherwise
	}
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	name := flags.String("name", either(getenv("NAME"), hostname), "what it calls itself")
	host := flags.String("host", getenv("HOST"), "address to listen on")
	httpPorts := flags.String("http", either(getenv("HTTP"), "8080"), "ports for HTTP")
	tcpPorts := flags.String("tcp", getenv("TCP"), "ports that echo TCP")
	udpPorts := flags.String("udp", getenv("UDP"), "ports that echo UDP")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return nil, errUsage
	}
	ports := func(list string) []string {
		return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
	}
	return &server{
		name: *name, host: *host, http: ports(*httpPorts), tcp: ports(*tcpPorts), udp: ports(*udpPorts), load: new(load),
	}, nil
}

// run serves until ctx ends; requests that are then in flight are answered.
func (s *server) run(ctx context.Context) error {
	defer s.load.stop()
	group, ctx := errgroup.WithContext(ctx)
	for _, port := range s.http {
		group.Go(func() error { return s.serveHTTP(ctx, port) })
	}
	for _, port := range s.tcp {
		group.Go(func() error { return s.echoTCP(ctx, group, port) })
	}
	for _, port := range s.udp {
		group.Go(func() error { return s.echoUDP(ctx, port) })
	}
	return group.Wait()
}

func (s *server) serveHTTP(ctx context.Context, port string) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(s.host, port))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.handler(port), ReadHeaderTimeout: time.Minute}
	fmt.Printf("%s serves HTTP on port %s\n", s.name, port)
	var group errgroup.Group
	group.Go(func() error {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return server.Shutdown(ending)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return group.Wait()
}

// handler answers what a test wants to know of the process and its place.
func (s *server) handler(port string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "hello from %s, port %s\n", s.name, port)
	})
	mux.HandleFunc("/caller", func(w http.ResponseWriter, r *http.Request) { // whom the process sees calling
		_, _ = fmt.Fprintln(w, r.RemoteAddr)
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) {
		environ := map[string]string{}
		for _, variable := range os.Environ() {
			name, value, _ := strings.Cut(variable, "=")
			environ[name] = value
		}
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(environ)
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, r.URL.Query().Get("path"))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { // answers after ?for=
		wait, err := time.ParseDuration(r.URL.Query().Get("for"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(wait):
			_, _ = fmt.Fprintf(w, "hello from %s, after %v\n", s.name, wait)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/load/start", func(w http.ResponseWriter, r *http.Request) {
		s.load.start(r.URL.Query()["url"])
	})
	mux.HandleFunc("/load/stop", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, s.load.stop())
	})
	mux.HandleFunc("/load", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, s.load.report())
	})
	return mux
}

// echoTCP sends back what it gets, and closes when the other end has.
func (s *server) echoTCP(ctx context.Context, group *errgroup.Group, port string) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(s.host, port))
	if err != nil {
		return err
	}
	fmt.Printf("%s echoes TCP on port %s\n", s.name, port)
	group.Go(func() error {
		<-ctx.Done()
		return listener.Close()
	})
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		group.Go(func() error {
			defer func() { _ = conn.Close() }()
			done := make(chan struct{})
			group.Go(func() error {
				select {
				case <-ctx.Done():
					_ = conn.Close()
				case <-done:
				}
				return nil
			})
			_, _ = io.Copy(conn, conn) // its end, however it comes, is the caller's
			close(done)
			return nil
		})
	}
}

func (s *server) echoUDP(ctx context.Context, port string) error {
	conn, err := net.ListenPacket("udp", net.JoinHostPort(s.host, port))
	if err != nil {
		return err
	}
	fmt.Printf("%s echoes UDP on port %s\n", s.name, port)
	var group errgroup.Group
	group.Go(func() error {
		<-ctx.Done()
		return conn.Close()
	})
	packet := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(packet)
		if ctx.Err() != nil {
			return group.Wait()
		}
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(packet[:n], from); err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
		}
	}
}
