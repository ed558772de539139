package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/telepresence/telepresence/pkg/dockerrun"
	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// inContainer is method container: the room is a docker container's.
type inContainer struct {
	session *session
	args    *dockerrun.Args
	toHost  []dockerrun.Relay
	engine  *dockerrun.Engine
}

// check reads docker run's arguments and finds the engine.
func (c *inContainer) check(ctx context.Context) error {
	var err error
	o := c.session.o
	if c.args, err = dockerrun.Parse(o.Docker); err != nil {
		return fmt.Errorf("--docker-run: %w", err)
	}
	for _, text := range o.ContainerToHost {
		relay, err := parseRelay(text)
		if err != nil {
			return fmt.Errorf("--container-to-host: %w", err)
		}
		c.toHost = append(c.toHost, relay)
	}
	if err := dockerrun.SweepFiles(); err != nil {
		o.Log.Warn("clearing what sessions that are gone left on this machine", "err", err)
	}
	if c.engine, err = dockerrun.Connect(ctx, dockerrun.ConnectConfig{CLI: "docker", Log: o.Log}); err != nil {
		return err
	}
	if err := c.engine.Sweep(ctx); err != nil {
		o.Log.Warn("clearing what sessions that are gone left in the engine", "err", err)
	}
	return nil
}

// parseRelay reads CPORT[:HPORT].
func parseRelay(text string) (dockerrun.Relay, error) {
	inside, outside, two := strings.Cut(text, ":")
	if !two {
		outside = inside
	}
	from, err := plan.ParsePort(inside)
	if err != nil {
		return dockerrun.Relay{}, err
	}
	to, err := plan.ParsePort(outside)
	return dockerrun.Relay{Container: uint16(from), Host: uint16(to)}, err
}

// whyCopies is why the engine can't see what this process has mounted: it runs
// elsewhere, or as another user, to whom FUSE shows nothing.
func (c *inContainer) whyCopies() string {
	switch {
	case !c.engine.SharesFiles():
		return "the docker engine is on another machine"
	case os.Geteuid() != 0 && !c.engine.Rootless():
		return "the docker engine runs as another user, to whom mounts of yours are closed"
	}
	return ""
}

// open starts the helper container, whose network namespace is the room's.
func (c *inContainer) open(ctx context.Context, in furniture) (room, error) {
	o := c.session.o
	in.variables["TELEPRESENCE_METHOD"] = "container"
	config := dockerrun.Config{
		Engine: c.engine, Args: c.args, Session: string(c.session.plan.Session),
		Hostname: in.hostname, ResolvConf: in.resolv,
		ToHost: c.toHost,
		Stdin:  o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Log: o.Log,
	}
	for _, v := range in.volumes {
		config.Volumes = append(config.Volumes, dockerrun.Volume{Source: v.source, Target: v.target, ReadOnly: v.readOnly})
	}
	switch {
	case o.DockerMount != "":
		config.Volumes = append(config.Volumes, c.dockerMount(in)...)
		in.variables["TELEPRESENCE_ROOT"] = o.DockerMount
	default:
		delete(in.variables, "TELEPRESENCE_ROOT") // a path of this machine
	}
	config.Environ = over(nil, in.variables)
	made, err := dockerrun.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	if files := c.session.files; files != nil && files.copies != nil {
		if err := files.copies.Then(ctx, made.Mirror); err != nil {
			return nil, errors.Join(err, made.Close())
		}
	}
	return made, nil
}

// dockerMount is what --docker-mount shows: the pod's files as they lie here, or
// the volumes one by one, as they are all that an engine elsewhere has.
func (c *inContainer) dockerMount(in furniture) []dockerrun.Volume {
	at := c.session.o.DockerMount
	if c.engine.SharesFiles() {
		return []dockerrun.Volume{{Source: c.session.files.root, Target: at}}
	}
	var list []dockerrun.Volume
	for _, v := range in.volumes {
		list = append(list, dockerrun.Volume{Source: v.source, Target: path.Join(at, v.target), ReadOnly: v.readOnly})
	}
	return list
}
