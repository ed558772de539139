//go:build unix

package process

import (
	"encoding/gob"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// launcherMain waits for orders and becomes the command. It returns only when
// that can't be done.
func launcherMain() {
	runtime.LockOSThread() // capabilities and signal masks are a thread's
	syscall.CloseOnExec(launcherOrders)
	syscall.CloseOnExec(launcherReport)
	orders := os.NewFile(launcherOrders, "orders")
	report := os.NewFile(launcherReport, "report")
	var l launch
	if gob.NewDecoder(orders).Decode(&l) != nil {
		return // the keeper is gone, or ends us before we began
	}
	_ = gob.NewEncoder(report).Encode(become(l))
}

// become executes the command. It returns why it could not.
func become(l launch) refusal {
	if err := os.Chdir(l.Dir); err != nil {
		return refuse("changing to "+l.Dir, err)
	}
	path, err := lookUp(l.Command[0], l.Env)
	if err != nil {
		return refuse("looking it up", err)
	}
	if l.Foreground {
		if err := takeTerminal(os.Getpid()); err != nil {
			return refuse("taking the terminal", err)
		}
	}
	if l.DropCaps {
		if err := dropCapabilities(l.KeepCaps); err != nil {
			return refuse("dropping capabilities", err)
		}
	}
	err = syscall.Exec(path, l.Command, l.Env)
	if errors.Is(err, syscall.ENOEXEC) { // a script without #!, as a shell takes it
		args := append([]string{"sh", path}, l.Command[1:]...)
		err = syscall.Exec("/bin/sh", args, l.Env)
	}
	return refuse("executing "+path, err)
}

// lookUp finds a program in the PATH of env.
func lookUp(name string, env []string) (string, error) {
	path := ""
	for _, kv := range env {
		if len(kv) > 5 && kv[:5] == "PATH=" {
			path = kv[5:]
		}
	}
	if err := os.Setenv("PATH", path); err != nil {
		return "", err
	}
	found, err := exec.LookPath(name)
	var e *exec.Error
	if errors.As(err, &e) {
		return "", e.Err
	}
	return found, err
}
