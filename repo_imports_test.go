package repo

import (
	"go/token"
	"maps"
	"slices"
	"strings"
)

// edges are what a package may import of this module, and what it must not
// have in its closure: a prefix of import paths, with the reason. Tests may
// import what they like.
type edges struct {
	may    []string
	banned map[string]string
}

// The reasons that more than one package has.
const (
	agentSize  = "the agent's image stays under 8 MB"
	anyConn    = "the tunnel runs over any net.Conn and knows no Kubernetes"
	leafReason = "it is a leaf: it can be driven and fuzzed alone"
	noTunnel   = "a place produces a device; only the session joins it to a tunnel"
)

// importTable says who may import whom. A package that is not listed imports
// nothing of this module.
func importTable() map[string]edges {
	return map[string]edges{
		"cmd/telepresence": {
			may: []string{
				"pkg/session",                             // a session is one call
				"pkg/k8s", "pkg/k8s/plan", "pkg/k8s/undo", // list, leave, completion; the grammar of PORT[:REMOTE] and NAME[:CONTAINER]
				"pkg/doctor", "pkg/mount", "images", "pkg/imagecache", "pkg/imagecache/install", "pkg/imagecache/load",
				"pkg/vpn/sandbox", "pkg/vpn/host", "pkg/dockerrun", "pkg/process", // re-exec, checks
			},
		},
		"cmd/telepresence-agent": {
			may: []string{"pkg/proxy", "pkg/k8s/undo"},
			banned: map[string]string{
				"k8s.io/":            agentSize,
				"sigs.k8s.io/":       agentSize,
				"gvisor.dev/":        agentSize,
				"github.com/docker/": agentSize,
			},
		},
		"cmd/telepresence-imagecache": {may: []string{"pkg/imagecache", "pkg/imagecache/members"}},
		"pkg/session": {
			may: []string{
				"pkg/k8s", "pkg/k8s/plan", "pkg/k8s/undo", "pkg/proxy", "pkg/vpn", "pkg/vpn/tun", "pkg/vpn/resolver",
				"pkg/vpn/sandbox", "pkg/vpn/host", "pkg/dockerrun", "pkg/mount", "images", "pkg/imagecache/install",
				"pkg/process", "pkg/listening",
			},
			banned: map[string]string{"github.com/spf13/": "a session knows no command line"},
		},
		"pkg/k8s": {
			may: []string{"pkg/k8s/plan", "pkg/k8s/undo", "pkg/k8s/portforward", "pkg/k8s/ranges", "pkg/doctor", "images"},
			banned: map[string]string{
				"golang.org/x/crypto/ssh": "a cluster hands out streams; what runs over them is the tunnel's",
				"gvisor.dev/":             "a cluster hands out streams; packets are the engine's",
			},
		},
		"pkg/k8s/plan": {
			may:    []string{"pkg/k8s/undo"},
			banned: map[string]string{"k8s.io/client-go": "a plan is pure: it cannot change anything"},
		},
		"pkg/k8s/undo": {banned: map[string]string{
			".": "client, guard and leave run the same restore: standard library only",
		}},
		"pkg/k8s/ranges":      {banned: map[string]string{"golang.org/x/crypto/ssh": "addresses are asked for, not reached"}},
		"pkg/k8s/portforward": {banned: map[string]string{"golang.org/x/crypto/ssh": "a port-forward is a stream; what runs over it is the tunnel's"}},
		"pkg/proxy": {
			may: []string{"pkg/proxy/resume", "pkg/proxy/gate"},
			banned: map[string]string{
				"k8s.io/": anyConn, "sigs.k8s.io/": anyConn,
				"gvisor.dev/": "packets are the engine's",
			},
		},
		"pkg/proxy/resume": {
			may:    []string{"pkg/proxy/gate"},
			banned: map[string]string{".": "a net.Conn over net.Conns: standard library only"},
		},
		"pkg/proxy/gate": {banned: map[string]string{".": leafReason}},
		"pkg/vpn": {
			may:    []string{"pkg/vpn/tun"},
			banned: map[string]string{"k8s.io/": "the engine knows devices and a Dialer"},
		},
		"pkg/vpn/tun":      {banned: map[string]string{"k8s.io/": leafReason}},
		"pkg/vpn/resolver": {banned: map[string]string{"k8s.io/": leafReason, "gvisor.dev/": leafReason}},
		"pkg/process":      {banned: map[string]string{"k8s.io/": leafReason}},
		"pkg/vpn/sandbox": {
			may:    []string{"pkg/vpn/tun", "pkg/doctor", "pkg/process"},
			banned: map[string]string{"gvisor.dev/": noTunnel, "k8s.io/": noTunnel},
		},
		"pkg/vpn/host": {
			may:    []string{"pkg/vpn/tun", "pkg/doctor"},
			banned: map[string]string{"gvisor.dev/": "what runs as root links no network stack", "k8s.io/": noTunnel},
		},
		"pkg/dockerrun": {
			may:    []string{"images", "pkg/doctor", "pkg/process", "pkg/listening", "pkg/vpn/tun"},
			banned: map[string]string{"gvisor.dev/": "the helper starts our binary; what that is, is the session's", "k8s.io/": noTunnel},
		},
		"pkg/mount":  {may: []string{"pkg/doctor"}, banned: map[string]string{"k8s.io/": leafReason}},
		"pkg/doctor": {banned: map[string]string{".": "a check is a type: standard library only"}},
		"pkg/imagecache": {
			may:    []string{"images", "pkg/doctor"},
			banned: map[string]string{"k8s.io/": "nodes are names and connections here; members finds them"},
		},
		"pkg/imagecache/install": {may: []string{"pkg/imagecache"}},
		"images/build":           {may: []string{"images"}},
		"test/bench":             {may: []string{"pkg/proxy", "pkg/proxy/resume", "pkg/vpn", "pkg/vpn/tun", "pkg/mount"}},
	}
}

// checkImports holds each package to the table: its own imports to what it may,
// its closure within this module to the bans.
func checkImports(tr *tree, bad report) {
	table := importTable()
	direct := map[string]map[string]place{}
	for _, s := range tr.code {
		if s.test {
			continue
		}
		if direct[s.dir] == nil {
			direct[s.dir] = map[string]place{}
		}
		for p, pos := range s.importPaths() {
			own, ok := strings.CutPrefix(p, module+"/")
			if ok && !slices.Contains(table[s.dir].may, own) {
				bad(s.path, tr.line(pos), "%s may not import %s: see importTable in repo_imports_test.go", s.dir, own)
			}
			direct[s.dir][p] = place{s.path, pos}
		}
	}
	for dir, e := range table {
		for prefix, reason := range e.banned {
			for p, way := range closure(dir, direct) {
				if matches(p, prefix) {
					bad(way.path, tr.line(way.pos), "%s must not have %s: %s", dir, p, reason)
				}
			}
		}
	}
}

// place is where an import stands.
type place struct {
	path string
	pos  token.Pos
}

// closure is all that a package imports, itself or through packages of this
// module, each with a place where it is imported.
func closure(dir string, direct map[string]map[string]place) map[string]place {
	all := map[string]place{}
	for todo, seen := []string{dir}, map[string]bool{}; len(todo) > 0; todo = todo[1:] {
		if seen[todo[0]] {
			continue
		}
		seen[todo[0]] = true
		for _, p := range slices.Sorted(maps.Keys(direct[todo[0]])) {
			all[p] = direct[todo[0]][p]
			if own, ok := strings.CutPrefix(p, module+"/"); ok {
				todo = append(todo, own)
			}
		}
	}
	return all
}

// matches says whether an import path falls under a ban; the ban "." is for
// everything that is not the standard library's or this module's.
func matches(path, ban string) bool {
	if ban == "." {
		first, _, _ := strings.Cut(path, "/")
		return strings.Contains(first, ".") && !strings.HasPrefix(path, module+"/")
	}
	return path == ban || strings.HasPrefix(path, strings.TrimSuffix(ban, "/")+"/")
}
