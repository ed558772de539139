package proxy

import (
	"context"
	"errors"
	"os"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// errnos are the errors that networks answer with, by name: their numbers differ between systems.
var errnos = map[string]syscall.Errno{
	"EACCES":          syscall.EACCES,
	"EADDRINUSE":      syscall.EADDRINUSE,
	"EADDRNOTAVAIL":   syscall.EADDRNOTAVAIL,
	"EAFNOSUPPORT":    syscall.EAFNOSUPPORT,
	"EAGAIN":          syscall.EAGAIN,
	"ECONNABORTED":    syscall.ECONNABORTED,
	"ECONNREFUSED":    syscall.ECONNREFUSED,
	"ECONNRESET":      syscall.ECONNRESET,
	"EHOSTDOWN":       syscall.EHOSTDOWN,
	"EHOSTUNREACH":    syscall.EHOSTUNREACH,
	"EINVAL":          syscall.EINVAL,
	"EMFILE":          syscall.EMFILE,
	"EMSGSIZE":        syscall.EMSGSIZE,
	"ENETDOWN":        syscall.ENETDOWN,
	"ENETUNREACH":     syscall.ENETUNREACH,
	"ENFILE":          syscall.ENFILE,
	"ENOBUFS":         syscall.ENOBUFS,
	"ENOMEM":          syscall.ENOMEM,
	"ENOPROTOOPT":     syscall.ENOPROTOOPT,
	"EPERM":           syscall.EPERM,
	"EPIPE":           syscall.EPIPE,
	"EPROTONOSUPPORT": syscall.EPROTONOSUPPORT,
	"ETIMEDOUT":       syscall.ETIMEDOUT,
}

var errnoNames = func() map[syscall.Errno]string {
	names := make(map[syscall.Errno]string, len(errnos))
	for name, errno := range errnos {
		names[errno] = name
	}
	return names
}()

// errnoName returns the symbolic name of the errno in err, or else err's text.
func errnoName(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		if name := errnoNames[errno]; name != "" {
			return name
		}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "ETIMEDOUT"
	}
	return err.Error()
}

// errnoOf is the reverse of errnoName.
func errnoOf(name string) error {
	if errno, ok := errnos[name]; ok {
		return errno
	}
	return errors.New(name)
}

// openError is the error of opening a channel: the pod's errno where it has one.
func openError(err error) error {
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) && refused.Reason == ssh.ConnectionFailed {
		return errnoOf(refused.Message)
	}
	return err
}
