// Package tun carries IP packets to and from a network namespace through a
// TUN device: each Read and each Write moves one whole packet.
//
// It neither gives the device an address nor routes anything to it.
package tun

import "errors"

// DefaultMTU is the largest packet, in bytes, that a device is made for. Big
// packets are what makes a TUN device fast: at this size the cost of a system
// call per packet is small, and segmentation offload would have little to add.
const DefaultMTU = 65520

// ErrUnsupported is returned by Open where this operating system has no
// device that the package knows.
var ErrUnsupported = errors.New("TUN devices are not supported on this operating system")

// Device is a packet device. Its methods may be called by several goroutines
// at once.
type Device interface {
	// Read reads one IP packet. A packet larger than p is cut to its length.
	Read(p []byte) (int, error)
	// Write writes one IP packet, and does not keep p.
	Write(p []byte) (int, error)
	// MTU is the largest packet in bytes.
	MTU() int
	// Close ends the calls under way and removes the device, unless somebody
	// else holds it open.
	Close() error
}
