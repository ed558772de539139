package main

import (
	"fmt"
	"strconv"
	"strings"
)

// ports are the two sides of PORT[:REMOTE]; with one port both are the same.
type ports struct{ local, remote uint16 }

// splitPorts parses PORT[:REMOTE].
func splitPorts(arg string) (ports, error) {
	left, right, two := strings.Cut(arg, ":")
	local, err := portNumber(left)
	if err != nil || !two {
		return ports{local, local}, err
	}
	remote, err := portNumber(right)
	return ports{local, remote}, err
}

func portNumber(arg string) (uint16, error) {
	n, err := strconv.ParseUint(arg, 10, 16)
	if err != nil || n == 0 || arg[0] == '+' {
		return 0, fmt.Errorf("%q is no port (1 to 65535)", arg)
	}
	return uint16(n), nil
}

func parsePorts(arg string) error { _, err := splitPorts(arg); return err }
func parsePort(arg string) error  { _, err := portNumber(arg); return err }

// parseTarget takes NAME[:CONTAINER], with KIND/ before it where the workload
// is not a deployment.
func parseTarget(arg string) error {
	workload, container, two := strings.Cut(arg, ":")
	if two && !dnsLabel.MatchString(container) {
		return fmt.Errorf("%q is no container's name", container)
	}
	kind, name, two := strings.Cut(workload, "/")
	if !two {
		kind, name = "deployment", workload
	}
	if err := parseDotted(name); err != nil {
		return err
	}
	if err := parseDotted(strings.ToLower(kind)); err != nil {
		return fmt.Errorf("%q is no kind of workload", kind)
	}
	return nil
}
