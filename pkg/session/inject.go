package session

import (
	"context"
	"net"

	"github.com/telepresence/telepresence/pkg/vpn/sandbox"
)

// inSandbox is method inject-tcp: the room is a namespace of the process's own.
type inSandbox struct{ session *session }

// check asks the kernel for such a namespace.
func (*inSandbox) check(ctx context.Context) error {
	for _, c := range sandbox.Checks() {
		if _, err := c.Run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// open makes the namespaces and what is in them.
func (i *inSandbox) open(ctx context.Context, in furniture) (room, error) {
	o := i.session.o
	config := sandbox.Config{
		Hostname:   in.hostname,
		ResolvConf: in.resolv,
		Hosts:      in.hosts,
		Addresses:  in.addresses,
		PodPorts:   in.podPorts,
		Command:    in.command,
		Env:        over(o.Environ, in.variables),
		Stdin:      o.Stdin,
		Stdout:     o.Stdout,
		Stderr:     o.Stderr,
		Log:        o.Log,
		Tell:       i.session.ev.Tell,
	}
	for _, v := range in.volumes {
		config.Binds = append(config.Binds, sandbox.Bind{Source: v.source, Target: v.target, ReadOnly: v.readOnly})
	}
	made, err := sandbox.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	return sandboxRoom{made}, nil
}

// sandboxRoom is a sandbox as a room.
type sandboxRoom struct{ *sandbox.Sandbox }

// Wait returns the process's exit code.
func (r sandboxRoom) Wait() (int, error) {
	status, err := r.Sandbox.Wait()
	return status.ExitCode(), err
}

// ListenInside listens on the sandbox's localhost.
func (r sandboxRoom) ListenInside(_ context.Context, port uint16) (net.Listener, error) {
	return r.Sandbox.ListenInside(port)
}
