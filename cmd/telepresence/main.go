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
)

// version is set by the linker: -X main.version=1.2.3.
var version = "dev"

func main() {
	if role, ok := roles()[reexecRole(os.Args)]; ok {
		os.Exit(role(os.Args))
	}
	streams := streams{os.Stdin, os.Stdout, os.Stderr}
	os.Exit(newProgram(programName(os.Args[0]), streams, os.Environ()).run(os.Args[1:]))
}

// streams are the files a program begins with.
type streams struct{ in, out, err *os.File }

// programName is what help and messages call the program: kubectl starts the
// plugin kubectl-telepresence for the command "kubectl telepresence".
func programName(argv0 string) string {
	name := strings.TrimSuffix(filepath.Base(argv0), ".exe")
	if strings.HasPrefix(name, "kubectl-") {
		return "kubectl telepresence"
	}
	return "telepresence"
}
