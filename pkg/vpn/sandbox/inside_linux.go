package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Listening says whether something in the sandbox listens on a TCP port.
func (s *Sandbox) Listening(port uint16) bool {
	_, ok := s.listener(port)
	return ok
}

// listener finds who in the sandbox listens on a port: the one that localhost
// reaches, if several do.
func (s *Sandbox) listener(port uint16) (addr netip.AddrPort, ok bool) {
	all, err := s.inside.listeners()
	if err != nil {
		s.log.Debug("looking for listeners in the sandbox", "error", err)
	}
	for _, l := range all {
		if l.addr.Port() != port {
			continue
		}
		for _, v6 := range []bool{false, true} {
			if local, reached := l.reaches(v6); reached {
				if !ok || local.Addr().Is4() {
					addr, ok = local, true
				}
				break
			}
		}
		if !ok {
			addr = l.addr // an address of the pod's, say
		}
	}
	return addr, addr.IsValid()
}

// Dial connects to a TCP port of the process, on localhost or where else in the
// sandbox it listens: never to one of the machine. The error is ECONNREFUSED
// where nothing listens.
func (s *Sandbox) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	to, ok := s.listener(port)
	if !ok {
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	}
	c, err := s.dial(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("connecting to port %d of the process: %w", port, err)
	}
	return c, nil
}

func (s *Sandbox) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	network := "tcp4"
	if to.Addr().Is6() {
		network = "tcp6"
	}
	_, files, err := s.wire.call(request{Op: opSocket, Network: network}, time.Now().Add(callPatience))
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	if len(files) != 1 {
		return nil, errors.New("the sandbox sent no socket")
	}
	if err := connect(ctx, files[0], to); err != nil {
		return nil, err
	}
	return net.FileConn(files[0])
}

// connect connects a socket that was made elsewhere.
func connect(ctx context.Context, f *os.File, to netip.AddrPort) error {
	var sa unix.Sockaddr
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	} else {
		sa = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var connectErr error
	if err := raw.Control(func(fd uintptr) { connectErr = unix.Connect(int(fd), sa) }); err != nil {
		return err
	}
	if connectErr != nil && !errors.Is(connectErr, unix.EINPROGRESS) {
		return connectErr
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		_ = f.SetWriteDeadline(time.Now().Add(localhostInterval)) // to look at ctx
		err := raw.Write(func(fd uintptr) (done bool) {
			done, connectErr = connected(int(fd))
			return done
		})
		if err == nil {
			return connectErr
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// connected says whether a socket's connect has ended, and how.
func connected(fd int) (bool, error) {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, err
	}
	if code != 0 {
		return true, unix.Errno(code) //nolint:gosec // an errno
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return false, nil // woken too early
	}
	return true, nil
}

// ListenInside listens on a TCP port of the sandbox's localhost, with IPv4 and
// IPv6: what the process sends there arrives at the listener (--to-pod).
func (s *Sandbox) ListenInside(port uint16) (net.Listener, error) {
	var joined joinedListener
	for network, local := range map[string]netip.Addr{"tcp4": netip.AddrFrom4([4]byte{127, 0, 0, 1}), "tcp6": netip.IPv6Loopback()} {
		l, err := s.listenInside(network, netip.AddrPortFrom(local, port))
		if network == "tcp6" && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			continue // no IPv6 here
		}
		if err != nil {
			_ = joined.Close()
			return nil, err
		}
		joined.parts = append(joined.parts, l)
	}
	s.mu.Lock()
	s.ports[port] = true
	s.mu.Unlock()
	joined.start()
	return &joined, nil
}

func (s *Sandbox) listenInside(network string, addr netip.AddrPort) (net.Listener, error) {
	_, files, err := s.wire.call(request{Op: opListen, Network: network, Addr: addr}, time.Now().Add(callPatience))
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	if len(files) != 1 {
		return nil, errors.New("the sandbox sent no listener")
	}
	return net.FileListener(files[0])
}

// joinedListener accepts what any of its parts does.
type joinedListener struct {
	parts    []net.Listener
	accepted chan net.Conn
	done     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup
}

func (j *joinedListener) start() {
	j.accepted, j.done = make(chan net.Conn), make(chan struct{})
	for _, l := range j.parts {
		j.wg.Go(func() {
			for {
				c, err := l.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					continue // of one connection
				}
				select {
				case j.accepted <- c:
				case <-j.done:
					_ = c.Close()
					return
				}
			}
		})
	}
}

// Accept implements net.Listener.
func (j *joinedListener) Accept() (net.Conn, error) {
	select {
	case c := <-j.accepted:
		return c, nil
	case <-j.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (j *joinedListener) Close() error {
	j.once.Do(func() {
		if j.done != nil {
			close(j.done)
		}
		for _, l := range j.parts {
			_ = l.Close()
		}
		j.wg.Wait()
	})
	return nil
}

// Addr implements net.Listener.
func (j *joinedListener) Addr() net.Addr { return j.parts[0].Addr() }

func portOf(a net.Addr) uint16 {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return 0
	}
	return p.Port()
}
