package dockerrun

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/hashicorp/yamux"
)

// stream is the client's end of what is said to the helper. Safe for concurrent
// use.
type stream struct {
	attached types.HijackedResponse
	out      *io.PipeReader // the helper's standard output
	mux      *yamux.Session
	device   *Device
	running  sync.WaitGroup

	mu        sync.Mutex // guards listeners
	listeners map[uint16]*listener
}

// pipe is the helper's standard output, and its standard input.
type pipe struct {
	io.Reader
	types.HijackedResponse
}

func (p pipe) Write(b []byte) (int, error) { return p.Conn.Write(b) }
func (p pipe) Close() error                { return p.Conn.Close() }
func (p pipe) Read(b []byte) (int, error)  { return p.Reader.Read(b) }

// newStream takes an attached helper over, and waits until it has its device.
func newStream(attached types.HijackedResponse, log *slog.Logger) (*stream, error) {
	s := &stream{attached: attached, listeners: make(map[uint16]*listener)}
	out, stdout := io.Pipe()
	s.out = out
	said := &lastLine{log: log}
	s.running.Go(func() {
		_, err := stdcopy.StdCopy(stdout, said, attached.Reader)
		stdout.CloseWithError(errors.Join(err, io.ErrUnexpectedEOF))
	})
	mux, err := yamux.Client(pipe{bufio.NewReaderSize(out, 1<<16), attached}, muxConfig())
	if err != nil {
		s.close()
		return nil, fmt.Errorf("talking to the helper container: %w", err)
	}
	s.mux = mux
	packets, answer, err := s.open(kindPackets, 0)
	if err != nil || answer != answerYes {
		s.close()
		return nil, fmt.Errorf("the helper container has no device: %s: %w", said.text(), errors.Join(err, syscall.ENODEV))
	}
	s.device = &Device{stream: packets, reader: bufio.NewReaderSize(packets, 1<<17)}
	s.running.Go(s.accept)
	return s, nil
}

// open opens a stream and hears the answer to its beginning.
func (s *stream) open(kind byte, port uint16) (net.Conn, byte, error) {
	c, err := s.mux.Open()
	if err != nil {
		return nil, 0, err
	}
	var answer [1]byte
	err = writeHead(c, kind, port)
	if err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	if err != nil {
		return nil, 0, errors.Join(err, c.Close())
	}
	return c, answer[0], nil
}

func (s *stream) dial(_ context.Context, port uint16) (net.Conn, error) {
	c, answer, err := s.open(kindDial, port)
	if err == nil && answer != answerYes {
		err = errors.Join(syscall.ECONNREFUSED, c.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to port %d in the container: %w", port, err)
	}
	return halfCloser{c}, nil
}

func (s *stream) listening(port uint16) bool {
	c, answer, err := s.open(kindLook, port)
	if err != nil {
		return false
	}
	_ = c.Close()
	return answer == answerYes
}

// openFiles opens a stream for what changes in a volume.
func (s *stream) openFiles(number uint16) (net.Conn, error) {
	c, answer, err := s.open(kindFiles, number)
	if err == nil && answer != answerYes {
		err = errors.Join(syscall.EIO, c.Close())
	}
	return c, err
}

// listen has the helper listen, and hand over what it accepts.
func (s *stream) listen(port uint16) (net.Listener, error) {
	c, answer, err := s.open(kindListen, port)
	if err != nil {
		return nil, err
	}
	if answer != answerYes {
		return nil, errors.Join(syscall.EADDRINUSE, c.Close())
	}
	l := &listener{stream: s, port: port, control: c, conns: make(chan net.Conn), closed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners[port] = l
	return l, nil
}

// accept hands the helper's connections to who listens.
func (s *stream) accept() {
	for {
		c, err := s.mux.Accept()
		if err != nil {
			return
		}
		kind, port, err := readHead(c)
		s.mu.Lock()
		l := s.listeners[port]
		s.mu.Unlock()
		if err != nil || kind != kindAccepted || l == nil {
			_ = c.Close()
			continue
		}
		select {
		case l.conns <- halfCloser{c}:
		case <-l.closed:
			_ = c.Close()
		}
	}
}

// close ends the helper, whose standard input ends.
func (s *stream) close() {
	s.mu.Lock()
	for _, l := range s.listeners {
		l.end()
	}
	s.mu.Unlock()
	if s.mux != nil {
		_ = s.mux.Close()
	}
	s.attached.Close()
	_ = s.out.Close() // who copies into it doesn't wait for a reader then
	s.running.Wait()
}

// Device is the device in the helper's network namespace.
type Device struct {
	stream net.Conn
	reader *bufio.Reader

	reading sync.Mutex // held by who reads
	writing sync.Mutex // guards out
	out     [4 + maxPacket]byte
}

// Read reads one packet. Packets larger than p, which should hold MTU bytes, are
// an error.
func (d *Device) Read(p []byte) (int, error) {
	d.reading.Lock()
	defer d.reading.Unlock()
	n, err := readPacket(d.reader, p)
	return n, gone(err)
}

// Write writes one packet.
func (d *Device) Write(p []byte) (int, error) {
	if len(p) > maxPacket {
		return 0, errPacket
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := writePacket(d.stream, d.out[:], p); err != nil {
		return 0, gone(err)
	}
	return len(p), nil
}

// gone makes of a stream that is closed what a closed file says.
func gone(err error) error {
	if errors.Is(err, yamux.ErrStreamClosed) || errors.Is(err, yamux.ErrSessionShutdown) {
		return os.ErrClosed
	}
	return err
}

// MTU is the largest packet in bytes.
func (*Device) MTU() int { return deviceMTU }

// Close ends the reading and writing.
func (d *Device) Close() error { return d.stream.Close() }

// halfCloser is a stream whose writing ends by itself: yamux's Close does that,
// and leaves the reading.
type halfCloser struct{ net.Conn }

// CloseWrite ends what is written.
func (h halfCloser) CloseWrite() error { return h.Close() }

// listener is a port in the namespace.
type listener struct {
	stream  *stream
	port    uint16
	control net.Conn
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the listening.
func (l *listener) Close() error {
	l.stream.mu.Lock()
	if l.stream.listeners[l.port] == l {
		delete(l.stream.listeners, l.port)
	}
	l.stream.mu.Unlock()
	l.end()
	return nil
}

func (l *listener) end() {
	l.once.Do(func() {
		close(l.closed)
		_ = l.control.Close()
	})
}

// Addr is where it listens.
func (l *listener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(l.port)}
}

// lastLine keeps what the helper said last on its standard error, and logs it.
type lastLine struct {
	log *slog.Logger

	mu   sync.Mutex // guards last
	last string
}

func (w *lastLine) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = strings.TrimSpace(string(p))
	w.log.Info("the helper container", "says", w.last)
	return len(p), nil
}

func (w *lastLine) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// toHost carries what comes to a listener in the namespace to this machine's
// localhost, until ctx ends.
func toHost(ctx context.Context, l net.Listener, port uint16, running *sync.WaitGroup) {
	running.Go(func() {
		<-ctx.Done()
		_ = l.Close()
	})
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		running.Go(func() {
			host, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				_ = c.Close()
				return
			}
			splice(ctx, c, host)
		})
	}
}

// splice carries both directions until they have ended, or ctx does.
func splice(ctx context.Context, a, b net.Conn) {
	done := make(chan struct{})
	var both, cut sync.WaitGroup
	cut.Go(func() {
		select {
		case <-ctx.Done():
		case <-done:
		}
		_ = a.Close()
		_ = b.Close()
	})
	one := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if h, ok := to.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	}
	both.Go(func() { one(a, b) })
	both.Go(func() { one(b, a) })
	both.Wait()
	close(done)
	cut.Wait()
}
