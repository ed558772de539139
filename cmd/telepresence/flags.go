package main

import "github.com/telepresence/telepresence/pkg/session"

// settings is what flags, environment and file say, before rules.go judges it.
type settings struct {
	session.Options

	runShell   bool
	help       bool
	version    bool
	logfile    string
	verbose    bool
	output     string // of sub-commands: "text" or "json"
	all        bool
	namespaces bool
	yes        bool // imagecache enable
	cacheImage string
	cacheRepos []string
	pullNever  bool
	load       bool
	loadWith   string
}

// flagRow is one option. Parser, help, completion, configuration file, man
// pages and docs/reference are all made from these rows.
type flagRow struct {
	name, short string
	arg         string // the argument as help shows it; empty for a switch
	def         string // the default as help says it; empty for none
	usage       string // begins with a verb, no full stop
	group       string // the heading it stands under
	on          string // the sub-commands that take it, separated by spaces; "" the flag form, "*" all
	complete    completionKind
	repeat      bool // may be given several times
	swallow     bool // takes the rest of the line
	config      bool // may stand in the configuration file
	noEnviron   bool // though it may, not in the environment: the variable is taken
	bind        func(*settings) *value
}

// completionKind is what a shell proposes for an option's argument.
type completionKind int

// The kinds of completion.
const (
	completeNothing completionKind = iota
	completeFile
	completeFolder
	completeContext
	completeNamespace
	completeTarget // a deployment, and behind a colon its containers
	completeMethod
	completeBool
	completeFormat
)

// The headings of help.
const (
	groupProxy   = "Which proxy"
	groupProcess = "What runs"
	groupTraffic = "Traffic"
	groupFiles   = "Files and environment"
	groupCluster = "Which cluster"
	groupSelf    = "Telepresence itself"
	groupCommand = "This command"
)

// flagTable lists every option, in the order of help.
func flagTable() []flagRow {
	var rows []flagRow
	for _, group := range [][]flagRow{proxyFlags(), processFlags(), trafficFlags(), fileFlags(), clusterFlags(), selfFlags(), commandFlags()} {
		rows = append(rows, group...)
	}
	return rows
}

func proxyFlags() []flagRow {
	return []flagRow{
		{name: "swap-deployment", short: "s", arg: "NAME[:CONTAINER]", group: groupProxy, complete: completeTarget,
			usage: "replace that container (default: the first) by the proxy; KIND/NAME for other workloads, such as statefulset/db",
			bind:  func(s *settings) *value { return targetValue(&s.Swap) }},
		{name: "new-deployment", short: "n", arg: "NAME", group: groupProxy,
			def:   "a name made up, if none of the three is given",
			usage: "start a fresh proxy with a service of that name, removed at the end",
			bind:  func(s *settings) *value { return nameValue(&s.New) }},
		{name: "deployment", short: "d", arg: "NAME[:CONTAINER]", group: groupProxy, complete: completeTarget,
			usage: "use a proxy that already runs, and leave it as it was",
			bind:  func(s *settings) *value { return targetValue(&s.Standing) }},
		{name: "dry-run", group: groupProxy,
			usage: "print what would be done, as YAML, and change nothing",
			bind:  func(s *settings) *value { return switchValue(&s.DryRun) }},
	}
}

func processFlags() []flagRow {
	return []flagRow{
		{name: "run", arg: "COMMAND ARGS...", group: groupProcess, swallow: true, complete: completeFile,
			usage: "run this as the local process; takes the rest of the line",
			bind:  func(s *settings) *value { return listValue(&s.Command) }},
		{name: "run-shell", group: groupProcess, def: "what runs if nothing else is given",
			usage: "run an interactive shell",
			bind:  func(s *settings) *value { return switchValue(&s.runShell) }},
		{name: "docker-run", arg: "ARGS...", group: groupProcess, swallow: true, complete: completeFile,
			usage: "run this container as the local process, with the arguments of docker run; takes the rest of the line",
			bind:  func(s *settings) *value { return listValue(&s.Docker) }},
	}
}

func trafficFlags() []flagRow {
	return []flagRow{
		{name: "expose", arg: "PORT[:REMOTE]", group: groupTraffic, repeat: true,
			def:   "the container's TCP ports, each to the same port here",
			usage: "bring what arrives at the pod's port REMOTE to PORT here",
			bind:  func(s *settings) *value { return exposeValue(&s.Expose) }},
		{name: "to-pod", arg: "PORT", group: groupTraffic, repeat: true,
			usage: "let 127.0.0.1:PORT here reach 127.0.0.1:PORT in the pod, to use a sidecar",
			bind:  func(s *settings) *value { return portValue(&s.ToPod) }},
		{name: "from-pod", arg: "PORT", group: groupTraffic, repeat: true,
			usage: "let 127.0.0.1:PORT in the pod reach 127.0.0.1:PORT here, for a sidecar that calls",
			bind:  func(s *settings) *value { return portValue(&s.FromPod) }},
		{name: "method", short: "m", arg: "METHOD", group: groupTraffic, complete: completeMethod, config: true, noEnviron: true,
			def:   "container with --docker-run; otherwise inject-tcp where it works, else vpn-tcp",
			usage: "intercept outbound traffic this way: inject-tcp, vpn-tcp or container",
			bind:  func(s *settings) *value { return methodValue(&s.Method) }},
		{name: "also-proxy", arg: "HOST", group: groupTraffic, repeat: true, config: true,
			usage: "send this through the cluster too: a name, resolved in the pod, an address or a CIDR range",
			bind:  func(s *settings) *value { return alsoProxyValue(&s.AlsoProxy) }},
		{name: "container-to-host", arg: "CPORT[:HPORT]", group: groupTraffic, repeat: true, config: true,
			usage: "let port CPORT in the container reach port HPORT here, for a debugger",
			bind:  func(s *settings) *value { return exposeValue(&s.ContainerToHost) }},
		{name: "local-cluster", group: groupTraffic, config: true, def: "found out",
			usage: "expect that the cluster resolves names through this machine, and ask elsewhere at once what it sends back",
			bind:  func(s *settings) *value { return switchValue(&s.LocalCluster) }},
	}
}

func fileFlags() []flagRow {
	return []flagRow{
		{name: "mount", arg: "true|false|PATH", group: groupFiles, complete: completeBool, config: true, def: "true",
			usage: "show the pod's files in a folder made for the session, not at all, or at an absolute path",
			bind:  func(s *settings) *value { return mountValue(&s.Mount) }},
		{name: "docker-mount", arg: "PATH", group: groupFiles,
			usage: "show the pod's files at this absolute path inside the container",
			bind:  func(s *settings) *value { return absoluteValue(&s.DockerMount) }},
		{name: "env-json", arg: "FILE", group: groupFiles, complete: completeFile,
			usage: "write the pod's environment to a file, as JSON",
			bind:  func(s *settings) *value { return textValue(&s.EnvJSON) }},
		{name: "env-file", arg: "FILE", group: groupFiles, complete: completeFile,
			usage: "write the pod's environment to a file, as docker run --env-file reads it",
			bind:  func(s *settings) *value { return textValue(&s.EnvFile) }},
	}
}

func clusterFlags() []flagRow {
	return []flagRow{
		{name: "context", arg: "NAME", group: groupCluster, on: "*", complete: completeContext, config: true, def: "kubeconfig's current one",
			usage: "use this context of the kubeconfig",
			bind:  func(s *settings) *value { return textValue(&s.Context) }},
		{name: "namespace", arg: "NAME", group: groupCluster, on: "*", complete: completeNamespace, config: true, def: "the context's",
			usage: "work in this namespace",
			bind:  func(s *settings) *value { return nameValue(&s.Namespace) }},
		{name: "as", arg: "USER", group: groupCluster, on: "*", config: true,
			usage: "act in the cluster as this user",
			bind:  func(s *settings) *value { return textValue(&s.As) }},
		{name: "as-group", arg: "GROUP", group: groupCluster, on: "*", repeat: true, config: true,
			usage: "act in the cluster as a member of this group; needs --as",
			bind:  func(s *settings) *value { return textsValue(&s.AsGroups) }},
		{name: "serviceaccount", arg: "NAME", group: groupCluster, config: true, def: "the workload's",
			usage: "let the proxy run under this service account",
			bind:  func(s *settings) *value { return dottedValue(&s.ServiceAccount) }},
		{name: "image-cache", group: groupCluster, config: true,
			usage: "let nodes take the proxy's image from each other, where the image cache is enabled",
			bind:  func(s *settings) *value { return switchValue(&s.ImageCache) }},
	}
}

func selfFlags() []flagRow {
	return []flagRow{
		{name: "logfile", arg: "PATH", group: groupSelf, complete: completeFile, config: true, def: "./telepresence.log",
			usage: "write the log to this file; - for stderr",
			bind:  func(s *settings) *value { return textValue(&s.logfile) }},
		{name: "verbose", group: groupSelf, config: true,
			usage: "log everything",
			bind:  func(s *settings) *value { return switchValue(&s.verbose) }},
		{name: "version", group: groupSelf,
			usage: "print the version and exit",
			bind:  func(s *settings) *value { return switchValue(&s.version) }},
		{name: "help", short: "h", group: groupSelf, on: "*",
			usage: "print this help and exit",
			bind:  func(s *settings) *value { return switchValue(&s.help) }},
	}
}

func commandFlags() []flagRow {
	return []flagRow{
		{name: "all", group: groupCommand, on: "leave",
			usage: "end every session in the namespace",
			bind:  func(s *settings) *value { return switchValue(&s.all) }},
		{name: "all-namespaces", short: "A", group: groupCommand, on: "list",
			usage: "list the sessions of every namespace",
			bind:  func(s *settings) *value { return switchValue(&s.namespaces) }},
		{name: "output", short: "o", arg: "FORMAT", group: groupCommand, on: "list leave doctor version imagecache-status", complete: completeFormat, def: "text",
			usage: "print the result as text or json",
			bind:  func(s *settings) *value { return formatValue(&s.output) }},
		{name: "yes", short: "y", group: groupCommand, on: "imagecache-enable",
			usage: "do it without asking",
			bind:  func(s *settings) *value { return switchValue(&s.yes) }},
		{name: "image", arg: "REFERENCE", group: groupCommand, on: "imagecache-enable", def: "this version's",
			usage: "run this image of the cache on the nodes; with --load, one of docker's, or FILE.tar",
			bind:  func(s *settings) *value { return textValue(&s.cacheImage) }},
		{name: "repo", arg: "HOST/NAME", group: groupCommand, on: "imagecache-enable", repeat: true, def: "the agent's image",
			usage: "share the images of this repository",
			bind:  func(s *settings) *value { return textsValue(&s.cacheRepos) }},
		{name: "pull-never", group: groupCommand, on: "imagecache-enable",
			usage: "expect the cache's image on every node, where no registry has it",
			bind:  func(s *settings) *value { return switchValue(&s.pullNever) }},
		{name: "load", group: groupCommand, on: "imagecache-enable",
			usage: "load the cache's image from here into the nodes of a local cluster: kind, k3d, minikube, Docker Desktop",
			bind:  func(s *settings) *value { return switchValue(&s.load) }},
		{name: "load-with", arg: "COMMAND", group: groupCommand, on: "imagecache-enable",
			usage: "load it into another cluster by a command that gets the archive's path as its last argument",
			bind:  func(s *settings) *value { return textValue(&s.loadWith) }},
	}
}
