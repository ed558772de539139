package mount

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// The benchmarks measure what a user does with the pod's files, through this
// package and through Debian's sshfs, over the same wire to the same server.
// `make bench-mount` runs them; what counts is the ratio.

const (
	benchFiles = 1000
	benchBig   = 100 << 20
)

// benchTree is 1,000 small files in one directory, the same number in 100
// directories, and one big file.
func benchTree(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	for i := range benchFiles {
		text := fmt.Sprintf("%2000d\n", i)
		name := fmt.Sprintf("file%04d.go", i)
		write(b, filepath.Join(dir, "flat", name), text)
		write(b, filepath.Join(dir, "tree", fmt.Sprintf("d%d", i/100), fmt.Sprintf("d%d", i/10), name), text)
	}
	write(b, dir+"/big", string(make([]byte, benchBig)))
	return dir
}

// sshfsMounted mounts dir by sshfs, which speaks SFTP on its standard input
// and output here, so that the wire can be ours.
func sshfsMounted(b *testing.B, p *pod, dir string) string {
	b.Helper()
	program, err := exec.LookPath("sshfs")
	if err != nil {
		b.Skip("sshfs is not installed: apt-get install sshfs")
	}
	pipe, err := p.open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	local := b.TempDir()
	outside, err := minorOf(local)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(b.Context()), program, "-f", "-o", "passive", "x:"+dir, local)
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if errIn != nil || errOut != nil {
		b.Fatal(errIn, errOut)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var copying sync.WaitGroup
	copying.Go(func() { _, _ = io.Copy(in, pipe) })
	copying.Go(func() { _, _ = io.Copy(pipe, out) })
	b.Cleanup(func() {
		if err := detach(local); err != nil {
			b.Error(err)
		}
		_ = pipe.Close()
		_ = in.Close()
		copying.Wait()
		_ = cmd.Wait()
	})
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		if minor, err := minorOf(local); err == nil && minor != outside {
			return local
		}
		select {
		case <-ticker.C:
		case <-deadline:
			b.Fatal("sshfs didn't mount")
		}
	}
}

// shell runs a command in a directory of a mount. The shell goes there itself:
// a process that forks a child into a mount it serves waits for the child's
// chdir, and the child for the process.
func shell(b *testing.B, dir, command string) {
	b.Helper()
	if out, err := exec.Command("sh", "-c", `cd "$0" && `+command, dir).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v: %s", command, err, out)
	}
}

func BenchmarkMount(b *testing.B) {
	jobs := []struct{ name, command string }{
		{"cat", "cat flat/* >/dev/null"},
		{"big", "cat big >/dev/null"},
		{"ls", "ls -lR tree >/dev/null"},
		{"grep", "{ grep -r nothing tree; true; }"},
		{"write", "head -c 20000000 /dev/zero >out"},
	}
	mounts := map[string]func(*testing.B, *pod, string) string{
		"telepresence": func(b *testing.B, p *pod, dir string) string { return mounted(b, p, dir, nil) },
		"sshfs":        sshfsMounted,
	}
	dir := benchTree(b)
	for _, rtt := range []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond} {
		for _, job := range jobs {
			for _, by := range []string{"telepresence", "sshfs"} {
				b.Run(fmt.Sprintf("%s/rtt=%v/%s", job.name, rtt, by), func(b *testing.B) {
					for b.Loop() {
						b.StopTimer()
						p := newPod(b)
						p.delay = rtt / 2
						local := mounts[by](b, p, dir)
						b.StartTimer()
						shell(b, local, job.command)
					}
				})
			}
		}
	}
}
