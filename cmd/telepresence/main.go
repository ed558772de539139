// Command telepresence runs a local process as if it were in a pod of a
// Kubernetes cluster, and brings the pod's traffic to it.
//
// The files stand for the steps of a call: grammar.go splits the line, flags.go
// says what there is to say, config.go adds the file's and the environment's
// defaults, rules.go judges the whole, and root.go makes one call of it,
// session.Run. Each sub-command has a file of its own. tui.go writes to the
// terminal; nothing else does.
package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "dev"

func main() {
	streams := streams{os.Stdin, os.Stdout, os.Stderr}
	if code, ok := reexec(os.Args[1:], streams); ok {
		os.Exit(code)
	}
	name, args := programName(os.Args[0]), os.Args[1:]
	if strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl_complete-") { // how kubectl asks a plugin for completions
		args = append([]string{cobra.ShellCompRequestCmd}, args...)
	}
	os.Exit(newProgram(name, streams, os.Environ()).run(args))
}

// streams are the files a program begins with.
type streams struct{ in, out, err *os.File }

// programName is what help and messages call the program: kubectl starts the
// plugin kubectl-telepresence for the command "kubectl telepresence".
func programName(argv0 string) string {
	name := strings.TrimSuffix(filepath.Base(argv0), ".exe")
	if strings.HasPrefix(name, "kubectl") {
		return "kubectl telepresence"
	}
	return "telepresence"
}
