package proxy

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// checkPeer lets only processes of our user and of our container pass: those of the pod's other containers, which
// share its network and may have the same user, have no process number here.
func checkPeer(conn net.Conn) error {
	sock, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("not a unix socket")
	}
	rc, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := rc.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if peerErr != nil {
		return peerErr
	}
	if int(peer.Uid) != os.Geteuid() || peer.Pid == 0 {
		return errors.New("only for processes of the agent's own container and user")
	}
	return nil
}
