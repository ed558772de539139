package imagecache

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
)

// stillAtIt stands in the place of a size: the origin sends, the chunk isn't there yet.
const stillAtIt = -1

// putSize and size are the number in front of a chunk.
func putSize(b []byte, size int64) { binary.BigEndian.PutUint64(b, uint64(size)) }
func size(b []byte) int64          { return int64(binary.BigEndian.Uint64(b)) }

// A repository as it stands in a path: the registry's host, then the name
// (https://github.com/opencontainers/distribution-spec, "Pulling manifests").
var (
	hostForm = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?$`)
	nameForm = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)
)

// checkRepo refuses what is no HOST/NAME…: it is to become a URL.
func checkRepo(repo string) error {
	host, name, ok := strings.Cut(repo, "/")
	if !ok || len(repo) > 512 || !hostForm.MatchString(host) {
		return fmt.Errorf("%q is not HOST/REPOSITORY", repo)
	}
	for part := range strings.SplitSeq(name, "/") {
		if !nameForm.MatchString(part) {
			return fmt.Errorf("%q is not HOST/REPOSITORY", repo)
		}
	}
	return nil
}

// Reference is the name under which a node's own runtime pulls an image from
// the node's cache. A path can't hold the colon of a registry's port: it is
// written as two underscores.
func Reference(port int, repo string, d Digest) string {
	return fmt.Sprintf("localhost:%d/%s@%s", port, PathOf(repo), d)
}

// PathOf is a repository, HOST[:PORT]/NAME, as it stands in the cache's paths.
func PathOf(repo string) string {
	host, name, _ := strings.Cut(repo, "/")
	return strings.Replace(host, ":", "__", 1) + "/" + name
}

// hostPort is a registry's host with a port, as PathOf writes it.
var hostPort = regexp.MustCompile(`^(.*)__([0-9]{1,5})$`)

// repoOf is the repository in a path that PathOf wrote.
func repoOf(path string) string {
	host, name, _ := strings.Cut(path, "/")
	return hostPort.ReplaceAllString(host, "$1:$2") + "/" + name
}
