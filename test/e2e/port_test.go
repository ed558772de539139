package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

// Ports for scripts lie below those that the kernel gives to whoever does not
// care which (32768 and up), so that no connection takes one by chance.
const firstPort, lastPort = 10000, 19999

// nextPort makes the ports of one run different from each other.
var nextPort atomic.Uint32

// freeport sets variables to ports that are free on this machine. Nobody else
// who asks here gets the same: not another script, nor another run.
func (s *script) freeport(ts *testscript.TestScript, names []string) (string, error) {
	if len(names) == 0 {
		return "", errors.New("usage: freeport NAME…")
	}
	for _, name := range names {
		port, err := claimPort(ts)
		if err != nil {
			return "", err
		}
		ts.Setenv(name, strconv.Itoa(port))
	}
	return "", nil
}

// claimPort finds a port whose lock, a name in the kernel's table of unix
// sockets, is free; the script holds it to its end.
func claimPort(ts *testscript.TestScript) (int, error) {
	const all = lastPort - firstPort + 1
	for range all {
		port := firstPort + (os.Getpid()*37+int(nextPort.Add(1)))%all
		lock, err := net.Listen("unix", fmt.Sprintf("@telepresence-e2e-port-%d", port))
		if err != nil {
			continue
		}
		if isFree(port) {
			ts.Defer(func() { _ = lock.Close() })
			return port, nil
		}
		_ = lock.Close()
	}
	return 0, fmt.Errorf("no port from %d to %d is free", firstPort, lastPort)
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	_ = listener.Close()
	packets, err := net.ListenPacket("udp", ":"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	_ = packets.Close()
	return true
}
