package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/telepresence/telepresence/pkg/session"
)

// call is a program whose session is a function, and what it wrote.
type call struct {
	*program
	stderr bytes.Buffer
	got    session.Options
}

// newCall makes a program that stops short of a session.
func newCall(t *testing.T, environ ...string) *call {
	t.Helper()
	c := &call{}
	c.program = newProgram("telepresence", streams{os.Stdin, os.Stdout, os.Stderr},
		append([]string{"XDG_CONFIG_HOME=" + t.TempDir(), "TELEPRESENCE_LOGFILE=" + filepath.Join(t.TempDir(), "log")}, environ...))
	c.ui = &tui{out: &c.stderr, err: &c.stderr, screen: func() screen { return screen{} }}
	c.runSession = func(_ context.Context, o session.Options, _ session.Events) (int, error) {
		c.got = o
		return 0, nil
	}
	c.sweep = func(context.Context) {}
	return c
}

// TestOptions checks that what is typed arrives as options of the session.
func TestOptions(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]session.Options{
		"":                                       {},
		"--run-shell":                            {},
		"-s web:app":                             {Swap: "web:app"},
		"-sweb":                                  {Swap: "web"},
		"-s=web":                                 {Swap: "web"},
		"--swap-deployment=web":                  {Swap: "web"},
		"-s statefulset/db:main":                 {Swap: "statefulset/db:main"},
		"-s rollouts.argoproj.io/web":            {Swap: "rollouts.argoproj.io/web"},
		"-s a -s b":                              {Swap: "b"},
		"-n try":                                 {New: "try"},
		"-d standing:tp":                         {Standing: "standing:tp"},
		"--expose 80 --expose 8080:81":           {Expose: []string{"80", "8080:81"}},
		"--to-pod 1 --from-pod=2":                {ToPod: []string{"1"}, FromPod: []string{"2"}},
		"-m vpn-tcp":                             {Method: session.MethodVPNTCP},
		"--also-proxy 10.0.0.0/8":                {AlsoProxy: []string{"10.0.0.0/8"}},
		"--also-proxy db.example.com":            {AlsoProxy: []string{"db.example.com"}},
		"--run ls -l --help":                     {Command: []string{"ls", "-l", "--help"}},
		"--run=ls -l":                            {Command: []string{"ls", "-l"}},
		"-s web --run x -s y":                    {Swap: "web", Command: []string{"x", "-s", "y"}},
		"--docker-run -p 80:80 image":            {Docker: []string{"-p", "80:80", "image"}, Method: session.MethodContainer},
		"--run a --docker-run b":                 {Command: []string{"a", "--docker-run", "b"}},
		"--mount false":                          {Mount: session.Mount{Off: true}},
		"--mount True":                           {},
		"--mount /tmp/x":                         {Mount: session.Mount{Path: "/tmp/x"}},
		"--docker-mount /x --docker-run i":       {DockerMount: "/x", Docker: []string{"i"}, Method: session.MethodContainer},
		"--container-to-host 9:8 --docker-run i": {ContainerToHost: []string{"9:8"}, Docker: []string{"i"}, Method: session.MethodContainer},
		"--env-json a --env-file b":              {EnvJSON: "a", EnvFile: "b"},
		"--context c --namespace n --serviceaccount a.b": {Context: "c", Namespace: "n", ServiceAccount: "a.b"},
		"--as u --as-group g --as-group h":               {As: "u", AsGroups: []string{"g", "h"}},
		"--local-cluster --dry-run --image-cache":        {LocalCluster: true, DryRun: true, ImageCache: true},
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			c := newCall(t)
			if code := c.run(strings.Fields(line)); code != 0 {
				t.Fatalf("exit code %d: %s", code, &c.stderr)
			}
			got := c.got
			got.Version, got.Grace, got.AgentImage = "", 0, ""
			got.Environ, got.Stdin, got.Stdout, got.Stderr, got.Log = nil, nil, nil, nil, nil
			if !reflect.DeepEqual(got, want) {
				t.Errorf("\n got %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestVerbose checks what goes into the log, and where it lies by default.
func TestVerbose(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{"": false, "--verbose": true, "--verbose=false": false} {
		c := newCall(t)
		if code := c.run(strings.Fields(line)); code != 0 || c.got.Log.Enabled(t.Context(), slog.LevelDebug) != want {
			t.Errorf("%q: exit code %d: %s", line, code, &c.stderr)
		}
	}
}

// hinted is an error that advises.
type hinted struct{}

func (hinted) Error() string { return "it broke" }
func (hinted) Hint() string  { return "mend it" }

// TestExitCodes checks how a session's end becomes the program's.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		code   int
		err    error
		want   int
		stderr string
	}{
		{"the process's own", 7, nil, 7, ""},
		{"a signal", 137, nil, 137, ""},
		{"done", 0, nil, 0, ""},
		{"failed", 0, errors.New("no cluster"), 255, "T: no cluster\n"},
		{"with advice", 0, hinted{}, 255, "T: it broke\nT: hint: mend it\n"},
		{"two lines", 0, errors.New("one\ntwo"), 255, "T: one\nT: two\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCall(t)
			c.runSession = func(context.Context, session.Options, session.Events) (int, error) { return tt.code, tt.err }
			if got := c.run(nil); got != tt.want || c.stderr.String() != tt.stderr {
				t.Errorf("exit code %d, want %d; stderr %q, want %q", got, tt.want, &c.stderr, tt.stderr)
			}
		})
	}
}

// TestSignals checks that the first signal ends the session's context, that the
// second doesn't hurry the clean-up, and that SIGPIPE ends nothing. Not
// parallel: signals go to the whole process.
func TestSignals(t *testing.T) { //nolint:paralleltest // signals go to the whole process
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if s == syscall.SIGHUP && signal.Ignored(s) {
			continue // the tests run under nohup, which the program heeds
		}
		c := newCall(t)
		told := make(chan string)
		c.runSession = func(ctx context.Context, _ session.Options, _ session.Events) (int, error) {
			send(t, syscall.SIGPIPE)
			send(t, s)
			<-ctx.Done()
			send(t, s)
			<-told
			return 0, nil
		}
		c.ui.err = writerFunc(func(p []byte) (int, error) {
			told <- string(p)
			return len(p), nil
		})
		if code := c.run(nil); code != 0 {
			t.Errorf("%v: exit code %d", s, code)
		}
	}
}

func send(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		t.Error(err)
	}
}

// writerFunc is a writer that is a function.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
