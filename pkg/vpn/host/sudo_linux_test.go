package host

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/telepresence/telepresence/test/wait"
)

// password is ada's, who may use sudo; its hash is in the world's shadow file.
const password = "let me in"

// sudoFiles make a machine on which ada types her password for sudo, and sudo
// puts a terminal of its own between her and what it runs, as Debian has it.
var sudoFiles = map[string]string{
	"passwd":        "root:x:0:0::/:/bin/sh\nada:x:1000:1000::/:/bin/sh\n",
	"group":         "root:x:0:\nada:x:1000:\n",
	"shadow":        "root:*:19000::::::\nada:$5$xhT21BHTCEPq9zHG$9KSWPrBE6wLKBKqKN4RLY7R9EeXtwVt451GKpyTIdx9:19000::::::\n",
	"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
	"hosts":         "127.0.0.1 localhost\n",
	"sudoers":       "Defaults use_pty\nDefaults lecture=never\nDefaults env_keep+=GORACE\nada ALL=(ALL) ALL\n",
	"pam.d/sudo":    "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_permit.so\n",
}

// adasPrompt is what sudo asks her.
const adasPrompt = "password for ada: "

// adasTemp is where her temporary files lie.
const adasTemp = "/run/ada"

// sudoWorld adds sudoFiles to the world, and returns this binary where ada may
// run it.
func sudoWorld(t *testing.T) string {
	t.Helper()
	for name, text := range sudoFiles {
		path := filepath.Join("/etc", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as it is
			t.Fatal(err)
		}
		write(t, path, text, 0o644)
	}
	if err := errors.Join(os.Chmod("/etc/sudoers", 0o440), os.Chmod("/etc/shadow", 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(adasTemp, 0o700), os.Chown(adasTemp, 1000, 1000)); err != nil {
		t.Fatal(err)
	}
	binary := "/run/telepresence"
	write(t, binary, "", 0o755)
	if err := unix.Mount(os.Args[0], binary, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	return binary
}

// adas is a session of ada's on a terminal.
type adas struct {
	t    *testing.T
	cmd  *exec.Cmd
	ptmx *os.File

	mu   sync.Mutex
	text string // what the terminal has shown
}

// adaStarts starts a session, which asks for a password.
func adaStarts(t *testing.T, binary string) *adas {
	t.Helper()
	a := &adas{t: t, cmd: exec.Command(binary, driverRole)}
	a.cmd.Dir, a.cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=" + adasTemp, "TERM=dumb", "GORACE=" + os.Getenv("GORACE")}
	// The terminal is hers, as a login gives it.
	attr := &syscall.SysProcAttr{Setsid: true, Setctty: true, Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	var err error
	if a.ptmx, err = pty.StartWithAttrs(a.cmd, nil, attr); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(a, a.ptmx) })
	t.Cleanup(func() {
		_ = a.ptmx.Close() // hangs up
		for pid := range processes(t) {
			if n, err := strconv.Atoi(pid); err == nil && n != os.Getpid() {
				_ = unix.Kill(n, unix.SIGKILL) // or the terminal has others who read it, for good
			}
		}
		reading.Wait()
		if t.Failed() {
			t.Logf("the terminal showed:\n%s", a.shown())
		}
	})
	a.sees(adasPrompt)
	return a
}

// Write adds what the terminal shows.
func (a *adas) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text += string(b)
	return len(b), nil
}

func (a *adas) shown() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.text
}

func (a *adas) sees(text string) {
	a.t.Helper()
	wait.Until(a.t, patience, "the terminal shows "+text, func() bool { return strings.Contains(a.shown(), text) })
}

func (a *adas) types(text string) {
	a.t.Helper()
	if _, err := io.WriteString(a.ptmx, text); err != nil {
		a.t.Fatal(err)
	}
}

// isAskedOnce checks how often sudo's question was announced.
func (a *adas) isAskedOnce() {
	a.t.Helper()
	if n := strings.Count(a.shown(), "T: sudo is asked for root: to make a network device"); n != 1 {
		a.t.Errorf("it was announced %d times", n)
	}
}

// sudo asks once. What is typed then is for the session, Ctrl-C among it, and the
// machine is put back however that ends.
func TestSudo(t *testing.T) {
	if _, err := exec.LookPath("sudo"); err != nil {
		t.Skip("no sudo here: test set-up installs it")
	}
	if !alone(t) {
		return
	}
	binary := sudoWorld(t)
	before := state(t)
	for name, use := range map[string]func(*testing.T, *adas){
		"used": func(t *testing.T, a *adas) {
			a.types(password + "\n")
			a.sees("up\r\n")
			a.types("hello\n")
			a.sees("got hello")
			a.types("end\n")
			if err := a.cmd.Wait(); err != nil {
				t.Error(err)
			}
		},
		"killed": func(_ *testing.T, a *adas) {
			a.types(password + "\n")
			a.sees("up\r\n")
			kill(t, driverRole)
			_ = a.cmd.Wait()
		},
		"its helper killed": func(t *testing.T, a *adas) {
			a.types(password + "\n")
			a.sees("up\r\n")
			killIf(t, func(args string) bool { return strings.HasPrefix(args, binary+" "+Role+" "+adasTemp) })
			a.types("end\n")
			if err := a.cmd.Wait(); err != nil {
				t.Error(err)
			}
		},
		"sudo killed": func(t *testing.T, a *adas) {
			a.types(password + "\n")
			a.sees("up\r\n")
			killIf(t, func(args string) bool { return strings.Contains(args, "sudo --background ") })
			a.types("end\n")
			if err := a.cmd.Wait(); err != nil {
				t.Error(err)
			}
		},
		"Ctrl-C at the prompt": func(t *testing.T, a *adas) {
			a.types("\x03")
			if err := a.cmd.Wait(); err == nil {
				t.Error("it succeeded")
			}
		},
		"refused": func(_ *testing.T, a *adas) {
			for range 3 {
				prompts := strings.Count(a.shown(), adasPrompt)
				a.types("guess\n")
				wait.Until(t, patience, "sudo answers", func() bool {
					return strings.Count(a.shown(), adasPrompt) > prompts || strings.Contains(a.shown(), "3 incorrect password attempts")
				})
			}
			a.sees("the privileged helper didn't start: sudo refused")
			_ = a.cmd.Wait()
		},
		"ended at the prompt": func(t *testing.T, a *adas) {
			if err := a.cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = a.cmd.Wait()
			_ = a.ptmx.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := adaStarts(t, binary)
			use(t, a)
			a.isAskedOnce()
			wait.Until(t, patience, "nothing runs on", func() bool { return len(processes(t)) == 1 })
			sameState(t, before)
			if left, err := os.ReadDir(adasTemp); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if err := os.RemoveAll("/run/sudo/ts"); err != nil { // the password is to be asked for again
				t.Fatal(err)
			}
		})
	}
}
