//go:build unix

package host

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// guarding is the helper's argument that makes it a guard.
const guarding = "guard"

// relieved is what a helper tells its guard when there is nothing left to undo.
const relieved = '.'

// startGuard starts a process that undoes what this one does, if this one is
// killed. It holds a pipe from us, and is in a session of its own, so that what
// is meant for our process group doesn't reach it.
func (m *machine) startGuard(cfg Config) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("starting the helper's guard: %w", err)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("starting the helper's guard: %w", err)
	}
	cmd := exec.Command(self, Role, guarding) //nolint:noctx // it ends when we do
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = in.Write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("starting the helper's guard: %w", err)
	}
	m.did(func() error {
		_, _ = in.Write([]byte{relieved}) // an error: it is gone already
		_ = in.Close()
		_ = cmd.Wait()
		return nil
	})
	return nil
}

// guard waits for the end of the helper that started it, and undoes what that
// leaves. It returns the exit code.
func guard(helper io.Reader) int {
	signal.Ignore(unix.SIGTERM) // as all others that a helper ignores
	var cfg Config
	in := json.NewDecoder(helper)
	if err := in.Decode(&cfg); err != nil {
		return 1 // it was killed before it did anything
	}
	rest, err := io.ReadAll(io.MultiReader(in.Buffered(), helper))
	if err != nil {
		return 1
	}
	if len(rest) > 0 && rest[len(rest)-1] == relieved {
		return 0
	}
	if repair(cfg) != nil {
		return 1
	}
	return 0
}
