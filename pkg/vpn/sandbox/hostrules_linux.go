package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// hostRules let the ports of the machine's localhost appear on the sandbox's. A
// packet to localhost for which there is no socket in the sandbox, and to a port
// that the machine has, goes to a relay listener, which sees the address
// it was sent to as its own. So nothing listens on those ports in the sandbox,
// and the process may any time.
type hostRules struct {
	conn *nftables.Conn
	sets map[string]*nftables.Set // by network
}

// relayListener is where connections to the machine's localhost arrive.
type relayListener struct {
	network string
	file    *os.File
}

// hostFamily is what differs between IPv4 and IPv6.
type hostFamily struct {
	network   string
	local     netip.Addr
	proto     byte
	dstOffset uint32 // of the destination address in the IP header
}

// setUpHostRules makes the rules, with no ports yet, and the listeners. With
// an error, localhost is the sandbox's own only.
func setUpHostRules() (*hostRules, []relayListener, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, nil, fmt.Errorf("talking to nftables: %w", err)
	}
	h := &hostRules{conn: conn, sets: map[string]*nftables.Set{}}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "telepresence"})
	chain := conn.AddChain(&nftables.Chain{
		Name: "localhost", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle,
	})
	for _, exprs := range passRules() {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	var relays []relayListener
	for _, f := range []hostFamily{
		{"tcp4", netip.AddrFrom4([4]byte{127, 0, 0, 1}), unix.NFPROTO_IPV4, 16},
		{"tcp6", netip.IPv6Loopback(), unix.NFPROTO_IPV6, 24},
	} {
		l, err := listen(f.network, netip.AddrPortFrom(f.local, 0), true)
		if err != nil {
			if f.network == "tcp6" {
				break // a kernel without IPv6
			}
			return nil, nil, err
		}
		relays = append(relays, relayListener{f.network, l})
		set := &nftables.Set{Table: table, Name: f.network, KeyType: nftables.TypeInetService}
		port, err := localPort(l)
		if err == nil {
			err = conn.AddSet(set, nil)
		}
		if err != nil {
			closeRelays(relays)
			return nil, nil, fmt.Errorf("adding a set to nftables: %w", err)
		}
		h.sets[f.network] = set
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: relayRule(f, set, port)})
	}
	if err := conn.Flush(); err != nil {
		closeRelays(relays)
		return nil, nil, fmt.Errorf("adding rules to nftables: %w", err)
	}
	return h, relays, nil
}

func closeRelays(relays []relayListener) {
	for _, r := range relays {
		_ = r.file.Close()
	}
}

func localPort(f *os.File) (uint16, error) {
	a, err := unix.Getsockname(int(f.Fd()))
	if err != nil {
		return 0, err
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port), nil //nolint:gosec // a port
	case *unix.SockaddrInet6:
		return uint16(a.Port), nil //nolint:gosec // a port
	}
	return 0, errors.New("not an IP socket")
}

// passRules let pass what is marked, and what has a socket in the sandbox: one
// that listens, or one that is connected.
func passRules() [][]expr.Any {
	mark := binary.NativeEndian.AppendUint32(nil, bypassMark)
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	return [][]expr.Any{
		append(onLoopback(), &expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, equal(mark), accept),
		// The value is of no interest: where there is no socket, the rule ends here.
		append(onLoopback(), &expr.Socket{Key: expr.SocketKeyTransparent, Register: 1}, accept),
	}
}

// relayRule sends what goes to the machine's ports to a relay listener.
func relayRule(f hostFamily, set *nftables.Set, relay uint16) []expr.Any {
	size, destination := uint32(16), f.local.AsSlice()
	if f.local.Is4() {
		size, destination = 1, destination[:1] // 127.0.0.0/8
	}
	return append(onLoopback(),
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{f.proto}),
		&expr.Payload{OperationType: expr.PayloadLoad, DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.dstOffset, Len: size},
		equal(destination),
		&expr.Payload{OperationType: expr.PayloadLoad, DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
		&expr.Immediate{Register: 1, Data: f.local.AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, relay)},
		&expr.TProxy{Family: f.proto, TableFamily: unix.NFPROTO_INET, RegAddr: 1, RegPort: 2},
	)
}

// onLoopback matches TCP on the loopback device.
func onLoopback() []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(name),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{unix.IPPROTO_TCP}),
	}
}

func equal(data []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

// set replaces the ports of the machine.
func (h *hostRules) set(ports hostPorts) error {
	if h == nil {
		return errors.ErrUnsupported
	}
	for network, list := range map[string][]uint16{"tcp4": ports.V4, "tcp6": ports.V6} {
		set := h.sets[network]
		if set == nil {
			continue
		}
		h.conn.FlushSet(set)
		elements := make([]nftables.SetElement, len(list))
		for i, p := range list {
			elements[i].Key = binary.BigEndian.AppendUint16(nil, p)
		}
		if len(elements) == 0 {
			continue
		}
		if err := h.conn.SetAddElements(set, elements); err != nil {
			return &Error{Op: "setting ports in nftables", Err: err}
		}
	}
	if err := h.conn.Flush(); err != nil {
		return &Error{Op: "setting ports in nftables", Err: err}
	}
	return nil
}
