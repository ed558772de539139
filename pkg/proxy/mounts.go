package proxy

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// AgentDir is where the session's keys and undo record are mounted into the agent's container.
const AgentDir = "/.telepresence"

// ImageDir is where a program run in the user's image has left the environment that it found there.
const ImageDir = "/.telepresence-image"

// notVolumes are mounts of every container that are no volumes of its pod.
var notVolumes = []string{
	"/dev/console", "/dev/mqueue", "/dev/pts", "/dev/termination-log",
	"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv",
}

// kubeletFile matches the roots of what the kubelet itself mounts into a container: its termination log, /etc/hosts.
var kubeletFile = regexp.MustCompile(`/pods/[^/]+/(containers/|etc-hosts$)`)

// parseMounts finds the pod's volumes in the text of /proc/self/mountinfo, see proc_pid_mountinfo(5).
func parseMounts(table string) []Mount {
	found := make(map[string]Mount)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+3 {
			continue
		}
		root, at, options := unescape(f[3]), unescape(f[4]), f[5]
		kind, source := f[dash+1], unescape(f[dash+2])
		if !isVolume(root, at, kind, source) {
			continue
		}
		// The last mount at a path hides those before.
		found[at] = Mount{Path: at, Type: kind, ReadOnly: slices.Contains(strings.Split(options, ","), "ro")}
	}
	mounts := make([]Mount, 0, len(found))
	for _, m := range found {
		mounts = append(mounts, m)
	}
	slices.SortFunc(mounts, func(a, b Mount) int { return strings.Compare(a.Path, b.Path) })
	return mounts
}

func isVolume(root, at, kind, source string) bool {
	switch {
	case at == "/" || !path.IsAbs(at) || slices.Contains(notVolumes, at) || kubeletFile.MatchString(root):
		return false
	case under(at, "/proc") || under(at, "/sys") || under(at, AgentDir) || under(at, ImageDir):
		return false
	case at == "/dev" || under(at, "/dev") && (kind == "devtmpfs" || kind == "devpts"):
		return false
	case at == "/dev/shm" && source == "shm": // the runtime's, not an emptyDir
		return false
	}
	return true
}

// under tells whether p is dir or lies in it.
func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// unescape replaces \ooo by the byte with that octal number.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
