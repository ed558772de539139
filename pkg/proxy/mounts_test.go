package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// mountinfo is of a container under containerd 1.6, with volumes of many kinds.
const mountinfo = `1213 1091 0:310 / / ro,relatime master:424 - overlay overlay rw,lowerdir=/var/lib/containerd/x,upperdir=/y,workdir=/z
1214 1213 0:312 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1215 1213 0:313 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
1216 1215 0:314 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
1217 1215 0:285 / /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw
1218 1213 0:291 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
1219 1218 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw
1220 1215 254:1 /var/lib/kubelet/pods/6f0b/containers/app/0d3f /dev/termination-log rw,relatime - ext4 /dev/vda1 rw
1221 1213 254:1 /var/lib/kubelet/pods/6f0b/containers/app/77aa /var/log/end rw,relatime - ext4 /dev/vda1 rw
1222 1213 254:1 /var/lib/kubelet/pods/6f0b/etc-hosts /etc/hosts rw,relatime - ext4 /dev/vda1 rw
1223 1213 254:1 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/1/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw
1224 1213 254:1 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/1/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda1 rw
1225 1215 0:284 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
1226 1213 0:279 / /.telepresence ro,relatime - tmpfs tmpfs rw,size=24G
1227 1213 254:1 /image /.telepresence-image rw,relatime - ext4 /dev/vda1 rw
1228 1213 0:280 / /var/run/secrets/kubernetes.io/serviceaccount ro,relatime - tmpfs tmpfs rw,size=24G
1229 1213 254:1 /var/lib/kubelet/pods/6f0b/volumes/kubernetes.io~configmap/conf /etc/conf\040d\134x ro,relatime - ext4 /dev/vda1 rw
1230 1213 254:1 /var/lib/kubelet/pods/6f0b/volume-subpaths/conf/app/1 /etc/app.yaml rw,relatime - ext4 /dev/vda1 rw
1231 1213 0:290 / /data rw,relatime shared:1 master:2 - nfs4 nas:/export rw
1232 1231 0:292 / /data rw,relatime - ext4 /dev/sdb rw
1233 1213 0:4 / /host/proc ro,relatime - proc proc rw
1234 1214 0:315 / /proc/kcore rw,nosuid - tmpfs tmpfs rw
1235 1213 0:316 / /procs rw - tmpfs tmpfs rw
`

func TestParseMounts(t *testing.T) {
	t.Parallel()
	var got []string
	for _, m := range parseMounts(mountinfo) {
		got = append(got, fmt.Sprintf("%s %s %v", m.Path, m.Type, m.ReadOnly))
	}
	want := []string{
		"/data ext4 false",
		"/etc/app.yaml ext4 false",
		`/etc/conf d\x ext4 true`,
		"/host/proc proc true",
		"/procs tmpfs false",
		"/var/run/secrets/kubernetes.io/serviceaccount tmpfs true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("volumes:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestParseMountsShm has a volume where the runtime usually has its own.
func TestParseMountsShm(t *testing.T) {
	t.Parallel()
	got := parseMounts("1225 1215 0:284 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=1G\n")
	if len(got) != 1 || got[0].Path != "/dev/shm" {
		t.Errorf("an emptyDir at /dev/shm: %v", got)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add(mountinfo)
	f.Fuzz(func(t *testing.T, table string) {
		for _, m := range parseMounts(table) {
			if m.Path == "/" || !strings.HasPrefix(m.Path, "/") || m.Type == "" {
				t.Errorf("%q has the volume %+v", table, m)
			}
		}
	})
}
