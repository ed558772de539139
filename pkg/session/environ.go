package session

import (
	"maps"
	"slices"
	"strings"
)

// The variables of the pod's that stay the machine's own: they say where
// programs and the user's files are, and those are here.
var ownVariables = []string{"HOME", "HOSTNAME", "PATH"}

// podEnviron is the container's whole environment: what the kubelet gave the
// proxy, and below it what only the original's image sets. The variables that
// stay the machine's own are left out. Both arguments are lists of NAME=VALUE;
// image is what an original's first process has, whose values of a pod's own
// (its name, say) must not win.
func podEnviron(kubelet, image []string) map[string]string {
	env := variables(image)
	maps.Copy(env, variables(kubelet))
	for _, name := range ownVariables {
		delete(env, name)
	}
	return env
}

// variables is a list of NAME=VALUE as a map. The last of a name wins, as it
// does in os/exec.
func variables(list []string) map[string]string {
	env := make(map[string]string, len(list))
	for _, v := range list {
		if name, value, ok := strings.Cut(v, "="); ok && name != "" {
			env[name] = value
		}
	}
	return env
}

// over lays env over a list of NAME=VALUE, and returns the whole as such a
// list: the list's own order first, with env's values, then env's other
// variables by name.
func over(list []string, env map[string]string) []string {
	left := maps.Clone(env)
	whole := make([]string, 0, len(list)+len(env))
	for _, v := range list {
		name, _, _ := strings.Cut(v, "=")
		if value, ok := env[name]; ok {
			if _, first := left[name]; first {
				whole = append(whole, name+"="+value)
				delete(left, name)
			}
			continue
		}
		whole = append(whole, v)
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		whole = append(whole, name+"="+left[name])
	}
	return whole
}
