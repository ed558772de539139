//go:build unix

package process

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"

	"github.com/telepresence/telepresence/test/wait"
)

// console is a terminal on which an interactive bash runs; $DRIVER runs a
// command in it as telepresence would.
type console struct {
	t    *testing.T
	ptmx *os.File

	mu   sync.Mutex // guards the fields below
	text string     // what appeared
	seen int        // how much of it was expected already
}

func newConsole(t *testing.T) *console {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bash, "--norc", "--noprofile", "-i")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "DRIVER="+self+" "+driverRole+" run", "PS1=$ ", "TERM=dumb", "HISTFILE=")
	ptmx, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, ptmx: ptmx}
	var wg sync.WaitGroup
	wg.Go(c.read)
	t.Cleanup(func() {
		if t.Failed() {
			c.mu.Lock()
			t.Logf("the console showed:\n%s", c.text)
			c.mu.Unlock()
		}
		_ = ptmx.Close() // hangs up
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		wg.Wait()
	})
	// Its echo would show what is expected before it happens.
	c.enter("stty -echo; bind 'set enable-bracketed-paste off'; set +o emacs; echo rea''dy")
	c.expect("ready\r\n")
	return c
}

func (c *console) read() {
	buf := make([]byte, 4096)
	for {
		n, err := c.ptmx.Read(buf)
		c.mu.Lock()
		c.text += string(buf[:n])
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// press sends keys as they are.
func (c *console) press(keys string) {
	c.t.Helper()
	if _, err := c.ptmx.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

// enter sends a line.
func (c *console) enter(line string) { c.t.Helper(); c.press(line + "\n") }

// expect waits for a text to appear after what was expected before.
func (c *console) expect(text string) {
	c.t.Helper()
	wait.Until(c.t, patience, "the console shows "+text, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := strings.Index(c.text[c.seen:], text)
		if i < 0 {
			return false
		}
		c.seen += i + len(text)
		return true
	})
}

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
)

func TestTerminalInterrupt(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.enter(`$DRIVER sh -c 'trap "echo caught; exit 42" INT; echo rea""dy; while :; do sleep 0.05; done'; echo code=$?`)
	c.expect("ready")
	c.press(ctrlC)
	c.expect("caught")
	c.expect("code=42")
	c.enter(`$DRIVER sh -c 'echo rea""dy; exec sleep 1000'; echo code=$?`)
	c.expect("ready")
	c.press(ctrlC)
	c.expect("code=130")
}

func TestTerminalStop(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.enter(`$DRIVER sh -c 'echo rea""dy; read x; echo got $x; exit 6'; echo code=$?`)
	c.expect("ready")
	c.press(ctrlZ)
	c.expect("Stopped")
	c.enter("echo sh''ell")
	c.expect("shell")
	c.enter("fg; echo code=$?")
	c.expect("$DRIVER sh -c")
	c.enter("hello")
	c.expect("got hello")
	c.expect("code=6")
}

func TestTerminalBackground(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.enter(`$DRIVER sh -c 'read x; echo got $x; exit 6' &`)
	c.expect("[1]")
	c.enter("while ! jobs | grep Stopped; do sleep 0.1; done")
	c.expect("Stopped")
	c.enter("fg; echo code=$?")
	c.expect("$DRIVER sh -c")
	c.enter("hello")
	c.expect("got hello")
	c.expect("code=6")
}

// A shell's fg sends a job that runs no signal.
func TestTerminalForegroundUnnoticed(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.enter(`$DRIVER sh -c 'touch up; while ! [ -e go ]; do sleep 0.05; done; read x; echo got $x' &`)
	c.enter("while ! [ -e up ]; do sleep 0.05; done; (sleep 0.3; touch go) & fg %1; echo code=$?")
	c.expect("$DRIVER sh -c")
	c.enter("hello")
	c.expect("got hello")
	c.expect("code=0")
}

func TestTerminalInteractiveShell(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.enter(`PS1='inner$ ' $DRIVER bash --norc --noprofile -i; echo code=$?`)
	c.expect("inner$ ")
	c.enter(`set +o emacs; stty -echo; sh -c 'echo rea""dy; trap "echo con\"\"tinued" CONT; trap "exit 7" INT; while :; do sleep 0.1; done'`)
	c.expect("ready")
	c.press(ctrlZ)
	c.expect("Stopped")
	c.enter("fg")
	c.expect("continued")
	c.press(ctrlC)
	c.expect("inner$ ") // before that, the key also throws away what was typed
	c.enter("echo inn''er=$?")
	c.expect("inner=7")
	c.enter("suspend")
	c.expect("Stopped")
	c.enter("echo out''er")
	c.expect("outer")
	c.enter("fg; echo code=$?")
	c.enter("echo inn''er again; exit 3")
	c.expect("inner again")
	c.expect("code=3")
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.Contains(c.text, "no job control") {
		t.Error("the shell has no job control")
	}
}

func TestTerminalModes(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.enter("stty echo")
	c.enter(`$DRIVER sh -c 'stty -echo -icanon; kill -9 $$'; echo co""de=$?; stty -a | tr " " "\n" | grep -x -e "-*echo" -e "-*icanon" | tr "\n" ,`)
	c.expect("code=137")
	c.expect("icanon,echo,")
}

func TestTerminalLostToKill(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.enter(`$DRIVER sh -c 'echo rea""dy; kill -9 '"\$(ps -o ppid= -p \$PPID)"'; sleep 1000'; echo code=$?`)
	c.expect("ready")
	c.expect("code=137")
	c.enter("echo sh''ell")
	c.expect("shell")
}
