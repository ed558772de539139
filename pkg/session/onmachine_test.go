package session

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// TestAlsoProxy checks what needs no look-up; names are also-proxy's in test/e2e.
func TestAlsoProxy(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"10.20.30.40/16": "[10.20.0.0/16]",
		"fd00:1::9/64":   "[fd00:1::/64]",
		"10.1.2.3":       "[10.1.2.3/32]",
		"fd00::1":        "[fd00::1/128]",
	} {
		routes, err := (&onMachine{}).alsoProxy(t.Context(), target, furniture{})
		if got := fmt.Sprint(routes); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", target, got, err, want)
		}
	}
}

func TestOutermost(t *testing.T) {
	t.Parallel()
	var ranges []netip.Prefix
	for _, text := range []string{"10.1.0.0/16", "10.1.2.0/24", "10.1.0.0/16", "fd00::/64", "10.2.0.0/16"} {
		ranges = append(ranges, netip.MustParsePrefix(text))
	}
	if got := fmt.Sprint(outermost(ranges)); got != "[10.1.0.0/16 fd00::/64 10.2.0.0/16]" {
		t.Errorf("got %s", got)
	}
}

func TestClusterDomains(t *testing.T) {
	t.Parallel()
	domains, inside := clusterDomains([]string{"shop.svc.k8s.example", "svc.k8s.example", "k8s.example", "corp.example"})
	if !slices.Equal(domains, []string{"k8s.example"}) || !slices.Equal(inside, []string{"shop.svc.k8s.example", "svc.k8s.example", "k8s.example"}) {
		t.Errorf("domains %v, inside %v", domains, inside)
	}
}
