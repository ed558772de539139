package host

import "golang.org/x/sys/unix"

// peerOf is the user at a unix socket's other end (SO_PEERCRED, unix(7)).
func peerOf(fd int) (uint32, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
