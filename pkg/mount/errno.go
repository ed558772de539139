package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/pkg/sftp"
)

// ErrNoFUSE is why nothing can be mounted on this machine by this user.
var ErrNoFUSE = errors.New("no FUSE on this machine")

// unavailableError is an ErrNoFUSE with what can be done about it.
type unavailableError struct {
	err  error
	hint string
}

func noFUSE(err error, hint string) error { return &unavailableError{err: err, hint: hint} }

// Error says what is missing.
func (e *unavailableError) Error() string { return fmt.Sprintf("%v: %v", ErrNoFUSE, e.err) }

// Hint says how to get it.
func (e *unavailableError) Hint() string { return e.hint }

// Is makes errors.Is(err, ErrNoFUSE) true.
func (e *unavailableError) Is(target error) bool { return target == ErrNoFUSE }

// Unwrap gives the reason.
func (e *unavailableError) Unwrap() error { return e.err }

// errnoOf is the error number the pod's kernel gave, as far as SFTP lets it
// through: version 3 of the protocol has codes for two of them, and the
// server's message ends with the text of the others.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	if status, ok := errors.AsType[*sftp.StatusError](err); ok {
		return errnoOfStatus(status)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, os.ErrPermission):
		return syscall.EACCES
	case errors.Is(err, os.ErrExist):
		return syscall.EEXIST
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, io.EOF):
		return 0
	}
	return syscall.EIO
}

// sshFxOpUnsupported is SSH_FX_OP_UNSUPPORTED of draft-ietf-secsh-filexfer-02,
// section 7.
const sshFxOpUnsupported = 8

func errnoOfStatus(status *sftp.StatusError) syscall.Errno {
	if status.Code == sshFxOpUnsupported {
		return syscall.ENOTSUP
	}
	// The text is: sftp: "the server's message" (the code's name)
	message := status.Error()
	if end := strings.LastIndexByte(message, '"'); end >= 0 {
		message = message[:end]
	}
	for _, errno := range named {
		if strings.HasSuffix(message, errno.Error()) {
			return errno
		}
	}
	return syscall.EIO
}

// named are the error numbers file operations give, beside those that SFTP
// has codes for.
var named = []syscall.Errno{
	syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES, syscall.EPERM, syscall.ENOENT,
	syscall.EEXIST, syscall.ENOTDIR, syscall.EISDIR, syscall.ENOTEMPTY, syscall.EXDEV, syscall.EBUSY,
	syscall.EINVAL, syscall.EFBIG, syscall.ELOOP, syscall.EMLINK, syscall.ENAMETOOLONG, syscall.ETXTBSY,
	syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENXIO, syscall.ENODEV, syscall.ESTALE,
	syscall.EBADF, syscall.ENOTSUP, syscall.ENOSYS, syscall.EAGAIN, syscall.ERANGE,
}
