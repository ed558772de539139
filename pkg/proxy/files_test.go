package proxy

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/pkg/sftp"
)

func TestPodInfo(t *testing.T) {
	t.Parallel()
	c := startAgent(t).connect(t)
	info, err := c.PodInfo(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if info.Version != "v0-test" || info.Hostname != hostname || info.UID != os.Getuid() || info.GID != os.Getgid() {
		t.Errorf("pod info: %+v", info)
	}
	if !slices.Equal(info.Environ, os.Environ()) {
		t.Errorf("environment: %q, want %q", info.Environ, os.Environ())
	}
	hosts, _ := os.ReadFile("/etc/hosts")
	resolv, _ := os.ReadFile("/etc/resolv.conf")
	if info.Hosts != string(hosts) || info.ResolvConf != string(resolv) {
		t.Errorf("hosts: %q, resolv.conf: %q", info.Hosts, info.ResolvConf)
	}
	if slices.ContainsFunc(info.Addresses, netip.Addr.IsLoopback) {
		t.Errorf("addresses: %v", info.Addresses)
	}
}

// openFiles opens an SFTP client on the tunnel.
func openFiles(t testing.TB, c *Client) *sftp.Client {
	t.Helper()
	stream, err := c.SFTP(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	files, err := sftp.NewClientPipe(stream, stream, sftp.UseConcurrentReads(true), sftp.MaxConcurrentRequestsPerFile(64))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = files.Close() })
	return files
}

func TestSFTP(t *testing.T) {
	t.Parallel()
	files := openFiles(t, startAgent(t).connect(t))
	dir := t.TempDir()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	if err := os.WriteFile(filepath.Join(dir, "big"), data, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("big", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	f, err := files.Open(filepath.Join(dir, "link"))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := f.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("read %d bytes, %v", got.Len(), err)
	}
	_ = f.Close()
	if target, err := files.ReadLink(filepath.Join(dir, "link")); err != nil || target != "big" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if _, err := files.Stat(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("stat of nothing: %v", err)
	}
	w, err := files.Create(filepath.Join(dir, "new"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	_ = w.Close()
	if err := files.PosixRename(filepath.Join(dir, "new"), filepath.Join(dir, "big")); err != nil {
		t.Error(err)
	}
	infos, err := files.ReadDir(dir)
	if err != nil || len(infos) != 2 {
		t.Errorf("the directory holds %v, %v", infos, err)
	}
}

// TestSFTPAcrossBreaks reads many files at once while the line breaks.
func TestSFTPAcrossBreaks(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	files := openFiles(t, a.connect(t))
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 100 {
		path := filepath.Join(dir, string(rune('a'+i%26))+string(rune('a'+i/26)))
		want := bytes.Repeat([]byte(path), 1000)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			f, err := files.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, %v", path, len(got), err)
			}
			if i%25 == 12 {
				a.breakLine(false)
			}
		})
	}
	wg.Wait()
}
