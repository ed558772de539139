package host

import "golang.org/x/sys/unix"

// peerOf is the user at a unix socket's other end (LOCAL_PEERCRED, unix(4)).
func peerOf(fd int) (uint32, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
