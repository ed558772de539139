package session

import (
	"log/slog"
	"os"
	"time"
)

// Options is what the command line says, in the field's words: no type of the
// flags' parser and none of the cluster's.
type Options struct {
	// Which proxy. At most one of the three is set; with none of them, New
	// is assumed with a name made up.
	Swap     string // NAME[:CONTAINER] or KIND/NAME[:CONTAINER]
	New      string // NAME
	Standing string // NAME[:CONTAINER] of a proxy that already runs

	Expose          []string // PORT[:REMOTE]
	ToPod           []string // PORT
	FromPod         []string // PORT
	ContainerToHost []string // CPORT[:HPORT]
	AlsoProxy       []string // host name, address or CIDR
	LocalCluster    bool

	Method Method

	// What to run. At most one of Command and Docker is set; with neither,
	// an interactive shell.
	Command []string // --run: program and arguments
	Docker  []string // --docker-run: docker run's arguments

	Mount       Mount
	DockerMount string // absolute path in the container, or empty
	EnvJSON     string // file to write, or empty
	EnvFile     string // file to write, or empty

	Context        string
	Namespace      string
	ServiceAccount string
	As             string
	AsGroups       []string

	DryRun     bool
	ImageCache bool
	Version    string        // of this program
	AgentImage string        // reference of the agent's image
	Grace      time.Duration // how long the proxy waits for a client that is gone

	Environ []string // the environment to start from: this process's own
	Stdin   *os.File
	Stdout  *os.File
	Stderr  *os.File
	Log     *slog.Logger // the log file; never nil
}

// Method is how outbound traffic is intercepted.
type Method string

// The methods of --method.
const (
	MethodAuto      Method = ""
	MethodInjectTCP Method = "inject-tcp"
	MethodVPNTCP    Method = "vpn-tcp"
	MethodContainer Method = "container"
)

// Mount says where the pod's file system appears locally.
type Mount struct {
	Off  bool   // --mount false
	Path string // an absolute path; empty: a folder made for the session
}
