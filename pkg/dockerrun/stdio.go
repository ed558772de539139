package dockerrun

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"sync"
	"time"
)

// dialStdio connects to the engine as the docker command does: over ssh, with
// TLS, in a context of whatever kind.
func dialStdio(cli string) func(context.Context, string, string) (net.Conn, error) {
	return func(_ context.Context, _, _ string) (net.Conn, error) {
		cmd := exec.Command(cli, "system", "dial-stdio") //nolint:noctx // the connection's life is not its dialling's
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return &stdioConn{Reader: out, in: in, cmd: cmd}, nil
	}
}

// stdioConn is a connection by a program's standard input and output. It has no
// deadlines: who uses it closes it.
type stdioConn struct {
	io.Reader
	in   io.WriteCloser
	cmd  *exec.Cmd
	once sync.Once
}

func (c *stdioConn) Write(p []byte) (int, error) { return c.in.Write(p) }

// CloseWrite ends what is written.
func (c *stdioConn) CloseWrite() error { return c.in.Close() }

// Close ends the program.
func (c *stdioConn) Close() error {
	c.once.Do(func() {
		_ = c.in.Close()
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	return nil
}

func (*stdioConn) LocalAddr() net.Addr                { return stdioAddr{} }
func (*stdioConn) RemoteAddr() net.Addr               { return stdioAddr{} }
func (*stdioConn) SetDeadline(t time.Time) error      { return noDeadline(t) }
func (*stdioConn) SetReadDeadline(t time.Time) error  { return noDeadline(t) }
func (*stdioConn) SetWriteDeadline(t time.Time) error { return noDeadline(t) }

func noDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	return errors.ErrUnsupported
}

type stdioAddr struct{}

func (stdioAddr) Network() string { return "docker" }
func (stdioAddr) String() string  { return "docker system dial-stdio" }
