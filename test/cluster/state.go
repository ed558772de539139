package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// A cluster is one state folder:
//
//	lock                held by a command that changes the cluster
//	network             which of the networks is its own
//	pki/                its certificate authority
//	admin.kubeconfig
//	bin/                kubectl, and ctr for any node
//	images/             the images that every node gets
//	control/, node1/…   one folder per machine: pid, init.log, lib (its /var/lib), log (its /var/log)
type cluster struct {
	dir    string // absolute
	cache  string // absolute; where built components are kept
	source string // this module's folder
}

// control is the name of the machine that the control plane runs on.
const control = "control"

// exitStatus is the exit status of a command run by exec.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func open() (*cluster, error) {
	source := os.Getenv("CLUSTER_SOURCE")
	if source == "" {
		return nil, errors.New("start it with the script test/cluster/cluster")
	}
	dir := os.Getenv("CLUSTER_STATE")
	if dir == "" {
		dir = filepath.Join(source, "..", "..", ".cluster")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	cache := os.Getenv("CLUSTER_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("finding the cache folder: %w", err)
		}
		cache = filepath.Join(user, "telepresence-test-cluster")
	}
	return &cluster{dir: dir, cache: cache, source: source}, nil
}

func (c *cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.dir}, elements...)...)
}

// write writes a file of the state folder, and the folders above it.
func (c *cluster) write(text string, elements ...string) error {
	path := c.path(elements...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}

// lock waits until no other command changes the cluster. The lock file goes
// with the rest at stop: whoever waited for it then takes a new one.
func (c *cluster) lock() (unlock func(), err error) {
	for {
		if err := os.MkdirAll(c.dir, 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(c.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		held, heldErr := f.Stat()
		there, thereErr := os.Stat(c.path("lock"))
		if heldErr == nil && thereErr == nil && os.SameFile(held, there) {
			return func() {
				_ = os.Remove(c.dir) // only an empty folder goes: one that was made just for the lock
				_ = f.Close()
			}, nil
		}
		_ = f.Close()
	}
}

// asRoot starts the same command again through sudo.
func (c *cluster) asRoot(command string, args []string) error {
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return errors.New("a cluster needs root: install sudo or become root")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := []string{
		"sudo", "env", "CLUSTER_SOURCE=" + c.source, "CLUSTER_STATE=" + c.dir, "CLUSTER_CACHE=" + c.cache,
		self, command,
	}
	return syscall.Exec(sudo, append(argv, args...), os.Environ())
}

// giveBack makes a file the user's again when root was reached through sudo.
func giveBack(path string) error {
	uid, errUID := strconv.Atoi(os.Getenv("SUDO_UID"))
	gid, errGID := strconv.Atoi(os.Getenv("SUDO_GID"))
	if errUID != nil || errGID != nil {
		return nil
	}
	return os.Chown(path, uid, gid)
}

var nodeName = regexp.MustCompile(`^node([1-9][0-9]*)$`)

// nodeNumber is N for the name nodeN, else 0.
func nodeNumber(name string) int {
	match := nodeName.FindStringSubmatch(name)
	if match == nil {
		return 0
	}
	n, _ := strconv.Atoi(match[1])
	return n
}

// nodes are the numbers of the nodes that were ever started, dead ones too.
func (c *cluster) nodes() ([]int, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var numbers []int
	for _, entry := range entries {
		if n := nodeNumber(entry.Name()); n > 0 {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// writeNetwork remembers which network the cluster has.
func (c *cluster) writeNetwork(n network) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return c.write(string(text), "network")
}

func (c *cluster) network() (network, error) {
	text, err := os.ReadFile(c.path("network"))
	if err != nil {
		return network{}, errors.New("no cluster runs here; start one with cluster start")
	}
	var n network
	if err := json.Unmarshal(text, &n); err != nil {
		return network{}, fmt.Errorf("reading %s: %w", c.path("network"), err)
	}
	return n, nil
}

// command runs a program; its error has what the program said.
func command(name string, args ...string) error {
	return commandInput("", name, args...)
}

// commandInput is command with a text on the program's standard input.
func commandInput(input, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
