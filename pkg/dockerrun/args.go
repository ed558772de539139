package dockerrun

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Args are docker run's arguments, as far as they have to be understood: what
// concerns the network is the helper container's, since that owns it; everything
// else is handed on as it is.
type Args struct {
	kept    []string // options of the user's container
	image   string
	command []string // everything behind the image

	// The helper's.
	publish    []string // -p
	publishAll bool     // -P
	expose     []string
	hostname   string
	dns        []string
	dnsSearch  []string
	dnsOption  []string
	addHost    []string

	init     bool     // --init, or its contrary, is given
	terminal bool     // -t
	targets  []string // where the user mounts something
}

// UsageError is arguments that can't be meant.
type UsageError struct{ Problem string }

// Error is the problem.
func (e *UsageError) Error() string { return e.Problem }

// Usage marks the error as the user's words' fault.
func (*UsageError) Usage() {}

// switches are docker run's options that take no value
// (https://docs.docker.com/reference/cli/docker/container/run/). All others do.
var switches = []string{
	"detach", "disable-content-trust", "help", "init", "interactive", "no-healthcheck", "oom-kill-disable", "privileged",
	"publish-all", "quiet", "read-only", "rm", "sig-proxy", "tty", "use-api-socket",
}

// shorts are the options of one letter.
var shorts = map[byte]string{
	'a': "attach", 'c': "cpu-shares", 'd': "detach", 'e': "env", 'h': "hostname", 'i': "interactive", 'l': "label",
	'm': "memory", 'P': "publish-all", 'p': "publish", 'q': "quiet", 't': "tty", 'u': "user", 'v': "volume", 'w': "workdir",
}

// refused are options that can't go together with the pod's network, each with
// what to do.
var refused = map[string]string{
	"network":       "the container's network is the pod's",
	"net":           "the container's network is the pod's",
	"network-alias": "the container's network is the pod's",
	"net-alias":     "the container's network is the pod's",
	"link":          "the container's network is the pod's",
	"ip":            "the container's network is the pod's",
	"ip6":           "the container's network is the pod's",
	"mac-address":   "the container's network is the pod's",
	"detach":        "the session lasts as long as the container's process, which it waits for",
}

// Parse reads docker run's arguments. Its error is a *UsageError.
func Parse(args []string) (*Args, error) {
	a := &Args{}
	for i := 0; i < len(args); {
		arg := args[i]
		switch {
		case arg == "--":
			return a.finish(args[i+1:])
		case len(arg) < 2 || arg[0] != '-':
			return a.finish(args[i:])
		}
		var used int
		var err error
		if strings.HasPrefix(arg, "--") {
			used, err = a.long(args[i:])
		} else {
			used, err = a.short(args[i:])
		}
		if err != nil {
			return nil, err
		}
		i += used
	}
	return a.finish(nil)
}

// Image is the one that is run.
func (a *Args) Image() string { return a.image }

func (a *Args) finish(rest []string) (*Args, error) {
	if len(rest) == 0 {
		return nil, &UsageError{"docker run's arguments name no image"}
	}
	a.image, a.command = rest[0], rest[1:]
	return a, nil
}

// long reads --name, --name=value or --name value, and returns how many
// arguments that took.
func (a *Args) long(args []string) (int, error) {
	name, value, given := strings.Cut(args[0][2:], "=")
	if slices.Contains(switches, name) {
		if !given {
			value = "true"
		}
		return 1, a.option(name, value, args[:1])
	}
	if given {
		return 1, a.option(name, value, args[:1])
	}
	if len(args) < 2 {
		return 0, &UsageError{fmt.Sprintf("%s needs a value", args[0])}
	}
	return 2, a.option(name, args[1], args[:2])
}

// short reads letters: switches, of which there may be several, and at the end
// one that has its value behind it or in the next argument.
func (a *Args) short(args []string) (int, error) {
	letters := args[0][1:]
	for i := range len(letters) {
		name, ok := shorts[letters[i]]
		if !ok {
			return 0, &UsageError{fmt.Sprintf("docker run has no option -%c", letters[i])}
		}
		if slices.Contains(switches, name) {
			if err := a.option(name, "true", []string{"-" + letters[i:i+1]}); err != nil {
				return 0, err
			}
			continue
		}
		if value := letters[i+1:]; value != "" {
			return 1, a.option(name, strings.TrimPrefix(value, "="), []string{"-" + letters[i:]})
		}
		if len(args) < 2 {
			return 0, &UsageError{fmt.Sprintf("-%c needs a value", letters[i])}
		}
		return 2, a.option(name, args[1], []string{"-" + letters[i:i+1], args[1]})
	}
	return 1, nil
}

// option sorts one option; words are it as the user wrote it.
func (a *Args) option(name, value string, words []string) error {
	if why, ok := refused[name]; ok && value != "false" {
		return &UsageError{fmt.Sprintf("docker run's --%s can't be used here: %s", name, why)}
	}
	moved := map[string]*[]string{
		"publish": &a.publish, "expose": &a.expose, "dns": &a.dns, "dns-search": &a.dnsSearch,
		"dns-option": &a.dnsOption, "dns-opt": &a.dnsOption, "add-host": &a.addHost,
	}
	if list, ok := moved[name]; ok {
		*list = append(*list, value)
		return nil
	}
	switch name {
	case "publish-all":
		a.publishAll = value == "true"
		return nil
	case "hostname":
		a.hostname = value
		return nil
	case "init":
		a.init = true
	case "tty":
		a.terminal = value == "true"
	case "volume", "mount", "tmpfs":
		a.targets = append(a.targets, target(name, value))
	}
	a.kept = append(a.kept, words...)
	return nil
}

// target is the path in the container that an option mounts something at.
func target(name, value string) string {
	switch name {
	case "mount":
		for part := range strings.SplitSeq(value, ",") {
			key, path, _ := strings.Cut(part, "=")
			if key == "target" || key == "destination" || key == "dst" {
				return path
			}
		}
		return ""
	case "tmpfs":
		path, _, _ := strings.Cut(value, ":")
		return path
	}
	parts := strings.Split(value, ":")
	if len(parts) == 1 {
		return parts[0]
	}
	return parts[1]
}

// errNoImage is for who runs an Args that Parse has not made.
var errNoImage = errors.New("no image")

// extra is what docker run gets beyond the user's own words.
type extra struct {
	helper  string   // the container that owns the network
	envFile string   // variables, one a line
	env     []string // names of variables whose values docker finds in its environment
	labels  []string
	mounts  []string // options that show the pod's files
}

// run is docker's command line.
func (a *Args) run(x extra) ([]string, error) {
	if a.image == "" {
		return nil, errNoImage
	}
	line := []string{"run", "--network=container:" + x.helper}
	if !a.init {
		line = append(line, "--init")
	}
	if x.envFile != "" {
		line = append(line, "--env-file="+x.envFile)
	}
	for _, name := range x.env {
		line = append(line, "--env="+name)
	}
	for _, l := range x.labels {
		line = append(line, "--label="+l)
	}
	line = append(line, x.mounts...)
	line = append(line, a.kept...) // later ones win: the user's
	return append(append(line, "--", a.image), a.command...), nil
}
