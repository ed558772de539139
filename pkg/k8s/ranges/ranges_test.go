package ranges

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestTidy(t *testing.T) {
	t.Parallel()
	got := tidy(prefixes([]string{"10.2.0.0/24", "10.1.0.0/16", "fd00::/56", "10.1.3.0/24", "10.2.0.0/24", "nonsense"}))
	if want := prefixes([]string{"10.1.0.0/16", "10.2.0.0/24", "fd00::/56"}); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestPodRanges(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ nodes, seen, avoid, want string }{
		"nodes tell":                {nodes: "10.244.0.0/24 10.244.1.0/24", seen: "10.244.1.7", want: "10.244.0.0/24 10.244.1.0/24"},
		"a plugin has its own":      {nodes: "10.244.0.0/24", seen: "172.20.1.7", want: "10.244.0.0/24 172.20.0.0/16"},
		"pods alone":                {seen: "10.244.1.7 10.244.9.1 fd00:1:2:3::5", want: "10.244.0.0/16 fd00:1:2::/56"},
		"nodes and services near":   {seen: "10.201.129.5", avoid: "10.201.0.11/32 10.201.64.0/18", want: "10.201.128.0/17"},
		"nodes in the pods' subnet": {seen: "10.0.12.7", avoid: "10.0.12.1/32", want: "10.0.12.4/30"},
		"nothing":                   {},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var nodes []corev1.Node
			for _, cidr := range strings.Fields(test.nodes) {
				nodes = append(nodes, corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: []string{cidr}}})
			}
			got := podRanges(nodes, addrs(strings.Fields(test.seen)), prefixes(strings.Fields(test.avoid)))
			if want := prefixes(strings.Fields(test.want)); !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

func TestAddrs(t *testing.T) {
	t.Parallel()
	got := addrs([]string{"10.244.1.7", "None", "", "::ffff:10.244.3.3"})
	if want := []netip.Addr{netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("10.244.3.3")}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestFindInOneNamespace asks as a user who may see neither nodes nor ServiceCIDRs.
func TestFindInOneNamespace(t *testing.T) {
	t.Parallel()
	refusal := "spec.clusterIPs: Invalid value: failed to allocate IP 192.0.2.1: the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/12"
	client := fake.NewClientset(
		&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns"},
			Status:     corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.244.1.7"}}, HostIPs: []corev1.HostIP{{IP: "192.168.1.2"}}},
		},
		&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "on-node", Namespace: "ns"},
			Spec:       corev1.PodSpec{HostNetwork: true}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "192.168.1.2"}}},
		},
	)
	forbidden := func(action clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(action.GetResource().GroupResource(), "", nil)
	}
	client.PrependReactor("list", "nodes", forbidden)
	client.PrependReactor("list", "servicecidrs", forbidden)
	client.PrependReactor("create", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewBadRequest(refusal)
	})
	got, err := Find(t.Context(), client, "https://10.0.0.1:6443", "ns")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Pods, []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}) || !slices.Equal(got.Services, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}) {
		t.Errorf("ranges %+v", got)
	}
}
