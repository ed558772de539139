package proxy

import (
	"context"
	"fmt"
	"io"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// SFTP opens an SFTP session (version 3) whose root is that of the container; it may do what the agent's user may.
// Closing the stream ends the session.
func (c *Client) SFTP(ctx context.Context) (io.ReadWriteCloser, error) {
	number := c.numbers.Add(1)
	ch, reqs, err := c.open(ctx, channelSession, ssh.Marshal(openSession{Flow: number}), 0)
	if err != nil {
		return nil, fmt.Errorf("opening the pod's files: %w", err)
	}
	conn := newConn(&c.tunnel, newBond(&c.tunnel, ch, number), reqs, "sftp", nil, nil)
	err = c.do(ctx, func() error {
		ok, err := ch.SendRequest(requestSubsystem, true, ssh.Marshal(subsystem{Name: "sftp"}))
		if err == nil && !ok {
			return errRefused
		}
		return err
	})
	if err != nil {
		_ = conn.Close() // err is the one that counts
		return nil, fmt.Errorf("opening the pod's files: %w", err)
	}
	return conn, nil
}

// openSession is the agent's end of SFTP.
func (s *session) openSession(_ context.Context, nc ssh.NewChannel) {
	var p openSession // its zero value is what others send
	_ = ssh.Unmarshal(nc.ExtraData(), &p)
	own, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	ch := newBond(&s.tunnel, own, p.Flow)
	defer ch.end()
	defer ch.Close()
	served := false
	for req := range reqs {
		var sub subsystem
		ok := !served && req.Type == requestSubsystem && ssh.Unmarshal(req.Payload, &sub) == nil && sub.Name == "sftp"
		_ = req.Reply(ok, nil) // fails only when the tunnel is gone
		if ok {
			served = s.tasks.start(func() { s.serveFiles(ch) })
		}
	}
}

// bulk is a channel whose writes are bulk data.
type bulk struct {
	flowChannel
	t *tunnel
}

func (b bulk) Write(p []byte) (int, error) {
	if err := writeChannel(b.t, b.flowChannel, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// serveFiles answers SFTP requests on ch until the client ends.
func (s *session) serveFiles(ch flowChannel) {
	srv, err := sftp.NewServer(bulk{flowChannel: ch, t: &s.tunnel}, sftp.WithServerWorkingDirectory("/"), sftp.WithAllocator())
	if err == nil {
		err = srv.Serve()
	}
	if err != nil {
		s.log.Debug("serving files", "error", err)
	}
	_ = ch.Close() // fails when the client was first
}
