package dockerrun

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"
)

// An engine that doesn't see this machine's files is given copies of them: each
// volume of the pod's is a docker volume, which the helper fills and the user's
// container has at the true place.

// volumeFormat is a docker volume's name: the session's, and its number there.
// The name tells whose it is, as not all engines keep labels.
const volumeFormat = "telepresence-files.%s.%d"

var volumePattern = regexp.MustCompile(`^telepresence-files\.([^.]+)\.\d+$`)

// volumesAt is where the helper has them, each under its number.
const volumesAt = "/volumes"

// makeMirrors has a mirror for each source that the container is to be shown.
func (c *Container) makeMirrors() error {
	if c.cfg.Engine.SharesFiles() {
		return nil
	}
	for _, v := range c.shown() {
		if c.mirrorOf(v.Source) != nil {
			continue
		}
		m, err := newMirror(v.Source, fmt.Sprintf(volumeFormat, c.cfg.Session, len(c.mirrors)))
		if err != nil {
			return err
		}
		c.mirrors = append(c.mirrors, m)
	}
	return nil
}

func (c *Container) mirrorOf(source string) *mirror {
	for _, m := range c.mirrors {
		if m.source == source {
			return m
		}
	}
	return nil
}

// helperMounts are the docker volumes, which the engine makes with the helper: so
// there is no time at which nobody uses them, and a sweep might take them.
func (c *Container) helperMounts() []mount.Mount {
	var list []mount.Mount
	for i, m := range c.mirrors {
		list = append(list, mount.Mount{Type: mount.TypeVolume, Source: m.volume, Target: fmt.Sprintf("%s/%d", volumesAt, i)})
	}
	return list
}

// volumeOptions are the docker volumes as docker run's own options have them. A
// single file is shown by its path on the engine's machine: engines older than
// Docker 26 can't show a part of a volume otherwise.
func (c *Container) volumeOptions(ctx context.Context) ([]string, error) {
	var list []string
	for _, v := range c.shown() {
		m := c.mirrorOf(v.Source)
		if !m.single {
			option := "--volume=" + m.volume + ":" + v.Target + ":nocopy"
			if v.ReadOnly {
				option += ",ro"
			}
			list = append(list, option)
			continue
		}
		there, err := c.cfg.Engine.client.VolumeInspect(ctx, m.volume)
		if err != nil {
			return nil, fmt.Errorf("asking the engine for volume %s: %w", m.volume, err)
		}
		v.Source = there.Mountpoint + "/" + filepath.Base(v.Source)
		list = append(list, "--mount="+bind(v))
	}
	return list, nil
}

// Mirror brings what the engine has copies of up to date. Not for several
// goroutines at once.
func (c *Container) Mirror(ctx context.Context) error {
	for i, m := range c.mirrors {
		if err := m.update(ctx, func() (net.Conn, error) { return c.stream.openFiles(uint16(i)) }); err != nil {
			return err
		}
	}
	return nil
}

// volumes are those that sessions have made, by session.
func (e *Engine) volumes(ctx context.Context) (map[string][]string, error) {
	list, err := e.client.VolumeList(ctx, volume.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "telepresence-files."))})
	if err != nil {
		return nil, fmt.Errorf("listing the engine's volumes: %w", err)
	}
	names := make(map[string][]string)
	for _, v := range list.Volumes {
		if parts := volumePattern.FindStringSubmatch(v.Name); parts != nil {
			names[parts[1]] = append(names[parts[1]], v.Name)
		}
	}
	return names, nil
}

// removeVolumes removes volumes.
func (e *Engine) removeVolumes(ctx context.Context, names []string, patience time.Duration) error {
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var errs []error
	for _, name := range names {
		err := removed(patient, func() error { return e.client.VolumeRemove(ctx, name, false) })
		if err != nil {
			errs = append(errs, fmt.Errorf("removing volume %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// removed removes something that may still be in use by a container that is about
// to end, or be about to go by itself, for which engines have errors of many kinds:
// again and again while there is time.
func removed(ctx context.Context, remove func() error) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err := remove()
		if err == nil || cerrdefs.IsNotFound(err) {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// clearVolumes removes a session's.
func (e *Engine) clearVolumes(ctx context.Context, session string) error {
	made, err := e.volumes(ctx)
	if err != nil {
		return err
	}
	return e.removeVolumes(ctx, made[session], removeWithin)
}

// sweepVolumes removes those whose session has no container any more.
func (e *Engine) sweepVolumes(ctx context.Context) error {
	made, err := e.volumes(ctx) // before the containers: the helper is there as soon as its volumes are
	if err != nil {
		return err
	}
	all, err := e.containers(ctx, labelSession)
	if err != nil {
		return err
	}
	for _, c := range all {
		delete(made, c.Labels[labelSession])
	}
	var names []string
	for _, list := range made {
		names = append(names, list...)
	}
	return e.removeVolumes(ctx, names, removeWithin)
}
