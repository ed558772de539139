package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

// startInTerminal starts a process in a terminal of its own, as its user would.
func (s *script) startInTerminal(ts *testscript.TestScript, args []string) (string, error) {
	if len(args) < 3 {
		return "", errors.New("usage: terminal NAME ROWSxCOLUMNS PROGRAM…")
	}
	size, err := terminalSize(args[1])
	if err != nil {
		return "", err
	}
	p, err := s.newProcess(ts, args[0], args[2:])
	if err != nil {
		return "", err
	}
	shown, err := os.Create(p.out)
	if err != nil {
		return "", err
	}
	if p.terminal, err = pty.StartWithSize(p.cmd, size); err != nil {
		return "", errors.Join(err, shown.Close())
	}
	p.copying.Go(func() {
		_, _ = io.Copy(shown, p.terminal) // ends with an error when the last process has closed the terminal
		_ = shown.Close()
		_ = p.terminal.Close()
	})
	s.attend(p)
	return "", nil
}

// keys types a text, in which Go's escapes stand for the keys that have no sign.
func (s *script) keys(_ *testscript.TestScript, args []string) (string, error) {
	p, err := s.named(args, "type NAME TEXT")
	if err != nil {
		return "", err
	}
	text, err := strconv.Unquote(`"` + args[1] + `"`)
	if err == nil && p.terminal == nil {
		err = fmt.Errorf("%s has no terminal", p.name)
	}
	if err == nil {
		_, err = p.terminal.WriteString(text)
	}
	return "", err
}

// resize changes a terminal's size.
func (s *script) resize(_ *testscript.TestScript, args []string) (string, error) {
	p, err := s.named(args, "resize NAME ROWSxCOLUMNS")
	if err != nil {
		return "", err
	}
	size, err := terminalSize(args[1])
	if err == nil && p.terminal == nil {
		err = fmt.Errorf("%s has no terminal", p.name)
	}
	if err == nil {
		err = pty.Setsize(p.terminal, size)
	}
	return "", err
}

func terminalSize(text string) (*pty.Winsize, error) {
	size := &pty.Winsize{}
	if _, err := fmt.Sscanf(text, "%dx%d", &size.Rows, &size.Cols); err != nil {
		return nil, fmt.Errorf("%q is no ROWSxCOLUMNS: %w", text, err)
	}
	return size, nil
}
