package listening

import (
	"net"
	"net/netip"
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F91 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 3
   3: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 3
   4: nonsense
`
	want := []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("[::1]:80"), netip.MustParseAddrPort("127.0.0.1:81"),
	}
	if got := parse([]byte(table)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOnLocalhost(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		port := netip.MustParseAddrPort(l.Addr().String()).Port()
		if !OnLocalhost(port) {
			t.Errorf("nobody is seen to listen on %v", l.Addr())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever a table holds, what is found in it is an address with a port.
func FuzzParse(f *testing.F) {
	f.Add([]byte("0: 0100007F:1F90 00000000:0000 0A\n"))
	f.Add([]byte("0: 01:FFFFF 0 0A\n: : : 0A"))
	f.Fuzz(func(t *testing.T, table []byte) {
		for _, at := range parse(table) {
			if !at.IsValid() {
				t.Errorf("%q gives %v", table, at)
			}
		}
	})
}
