//go:build !linux && !darwin

package tun

import "os"

// Open returns ErrUnsupported.
func Open(string, int) (Device, error) { return nil, ErrUnsupported }

// OpenFile returns ErrUnsupported.
func OpenFile(string, int) (*os.File, error) { return nil, ErrUnsupported }

// FromFile returns ErrUnsupported.
func FromFile(*os.File, int) (Device, error) { return nil, ErrUnsupported }

// Name returns ErrUnsupported.
func Name(*os.File) (string, error) { return "", ErrUnsupported }
