package mount

import (
	"os"
	"syscall"
	"testing"

	"github.com/pkg/sftp"
)

// TestErrno asks a real server for what can't be done.
func TestErrno(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/file", "x")
	write(t, dir+"/full/file", "x")
	r := newRemote(Config{SFTP: newPod(t).open}.withDefaults())
	t.Cleanup(r.close)
	for _, test := range []struct {
		what string
		op   func(c *sftp.Client) error
		want syscall.Errno
	}{
		{"nothing wrong", func(c *sftp.Client) error { return c.Mkdir(dir + "/new") }, 0},
		{"no such file", func(c *sftp.Client) error { _, err := c.Lstat(dir + "/none"); return err }, syscall.ENOENT},
		{"a file on the way", func(c *sftp.Client) error { _, err := c.Lstat(dir + "/file/x"); return err }, syscall.ENOTDIR},
		{"there already", func(c *sftp.Client) error {
			_, err := c.OpenFile(dir+"/file", os.O_WRONLY|os.O_CREATE|os.O_EXCL)
			return err
		}, syscall.EEXIST},
		{"not empty", func(c *sftp.Client) error { return c.RemoveDirectory(dir + "/full") }, syscall.ENOTEMPTY},
		{"another file system", func(c *sftp.Client) error { return c.Link("/proc/self/status", dir+"/x") }, syscall.EXDEV},
		{"no room", func(c *sftp.Client) error {
			f, err := c.OpenFile("/dev/full", os.O_WRONLY)
			if err == nil {
				_, err = f.WriteAt([]byte("x"), 0)
			}
			return err
		}, syscall.ENOSPC},
	} {
		_, err := call(t.Context(), r, func(s *session) (struct{}, error) { return struct{}{}, test.op(s.client) }, nil)
		if got := errnoOf(err); got != test.want {
			t.Errorf("%s: %v, from %v", test.what, got, err)
		}
	}
}
