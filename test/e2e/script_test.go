package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience is how long a condition may take to come true: far longer than it
// does on a machine that has nothing else to do.
const patience = 90 * time.Second

// A script is one run of one of the files. Its commands run one after another.
type script struct {
	cluster   *cluster
	namespace string
	folder    string // where its files are
	processes []*process
	line      *line   // nil while nothing goes over one
	engines   []*line // to docker
}

// scriptKey is where a TestScript has its *script.
type scriptKey struct{}

// setup makes the script's namespace and user and tells it where all is.
func (c *cluster) setup(env *testscript.Env) error {
	t, ok := env.T().(testing.TB)
	if !ok {
		return errors.New("scripts run under testing only")
	}
	s := &script{cluster: c, folder: env.WorkDir}
	env.Values[scriptKey{}] = s
	namespace, err := c.newNamespace(t.Context(), filepath.Base(t.Name()))
	if err != nil {
		return err
	}
	s.namespace = namespace
	env.Defer(func() {
		s.endProcesses()
		s.line.end()
		for _, l := range s.engines {
			l.end()
		}
		if t.Failed() {
			t.Log(s.evidence())
		}
		if err := c.deleteNamespace(namespace); err != nil {
			t.Errorf("deleting namespace %s: %v", namespace, err)
		}
	})
	kubeconfig, err := s.kubeconfig(t.Context(), "dev", "edit")
	if err != nil {
		return err
	}
	home := filepath.Join(env.WorkDir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"KUBECONFIG": kubeconfig, "NAMESPACE": namespace, "HOME": home, "APP_IMAGE": c.appImage,
		"PATH": c.path, "SHELL": "/bin/sh", "TERM": "dumb",
		"DOCKER_HOST": os.Getenv("DOCKER_HOST"), "LOAD": c.load,
	} {
		env.Setenv(name, value)
	}
	return nil
}

// run runs a program with the script's environment, in its folder.
func (s *script) run(ts *testscript.TestScript, extra []string, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.runInput(ctx, ts, extra, "", program, args...)
}

func (s *script) runInput(
	ctx context.Context, ts *testscript.TestScript, extra []string, input, program string, args ...string,
) (string, error) {
	cmd := exec.CommandContext(ctx, lookUp(ts.Getenv("PATH"), program), args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(s.environ(ts), extra...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", program, err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// environ is the environment of the processes that the words start. What a
// script sets beyond it, it hands on with env(1).
func (s *script) environ(ts *testscript.TestScript) []string {
	var environ []string
	for _, name := range []string{
		"PATH", "HOME", "KUBECONFIG", "NAMESPACE", "APP_IMAGE", "SHELL", "TERM", "WORK", "TMPDIR", "GOCOVERDIR", "DOCKER_HOST",
	} {
		if value := ts.Getenv(name); value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}

// lookUp finds a program on a PATH that is not this process's own.
func lookUp(path, program string) string {
	if strings.Contains(program, "/") {
		return program
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, program)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file
		}
	}
	return program
}

// eventually tries a command until it succeeds and its output matches.
func (s *script) eventually(ts *testscript.TestScript, args []string) (string, error) {
	var want *regexp.Regexp
	if len(args) > 2 && args[0] == "-stdout" {
		var err error
		if want, err = regexp.Compile("(?m)" + args[1]); err != nil {
			return "", err
		}
		args = args[2:]
	}
	if len(args) == 0 {
		return "", errors.New("no command given")
	}
	try := func() (string, error) {
		if run := words()[args[0]]; run != nil {
			return run(s, ts, args[1:])
		}
		return s.run(ts, nil, args[0], args[1:]...)
	}
	var output string
	err := until(func() error {
		var err error
		output, err = try()
		if err == nil && want != nil && !want.MatchString(output) {
			err = fmt.Errorf("the output does not match %s:\n%s", want, output)
		}
		return err
	})
	return output, err
}

// until tries again and again until there is no error, or patience ends; then
// the last error tells why.
func until(try func() error) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(250 * time.Millisecond)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("after %v: %w", patience, err)
		case <-again.C:
		}
	}
}
