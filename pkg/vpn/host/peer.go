//go:build unix

package host

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// peerUID is whose process is at the other end.
func peerUID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("asking who is at the other end: %w", err)
	}
	var uid uint32
	var credErr error
	err = raw.Control(func(fd uintptr) { uid, credErr = peerOf(int(fd)) })
	if err == nil {
		err = credErr
	}
	if err != nil {
		return -1, fmt.Errorf("asking who is at the other end: %w", err)
	}
	return int(uid), nil
}

// ownerOf is whose a file is.
func ownerOf(at os.FileInfo) (int, bool) {
	stat, ok := at.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), true
}
