package main

import (
	"context"

	"github.com/telepresence/telepresence/pkg/dockerrun"
	"github.com/telepresence/telepresence/pkg/process"
	"github.com/telepresence/telepresence/pkg/vpn/host"
	"github.com/telepresence/telepresence/pkg/vpn/sandbox"
)

// reexec is what the program does when it has started itself: its first
// argument is then a role, a word that no user types. It returns the exit code,
// or false where the user started the program. It is asked before anything else.
func reexec(args []string, s streams) (code int, ok bool) {
	if code, ok := process.Main(args); ok {
		return code, true
	}
	if len(args) == 0 {
		return 0, false
	}
	role, ok := roles(s)[args[0]]
	if !ok {
		return 0, false
	}
	return role(args[1:]), true
}

// roles says who takes the program over, with the arguments after the role.
func roles(s streams) map[string]func(args []string) int {
	return map[string]func(args []string) int{
		sandbox.Role: sandbox.Main,
		host.Role:    host.Main,
		dockerrun.HelperArg: func([]string) int {
			return dockerrun.Helper(context.Background(), s.in, s.out, s.err)
		},
	}
}
