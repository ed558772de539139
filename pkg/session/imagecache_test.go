package session

import (
	"reflect"
	"testing"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
)

// Without --image-cache the cluster isn't asked for one, and the request is as it
// was: so are the plan and its pod.
func TestNoImageCache(t *testing.T) {
	t.Parallel()
	want := plan.Request{AgentImage: "registry.example/telepresence-agent:1.0"}
	s := &session{request: want} // without a cluster
	s.useImageCache(t.Context())
	if !reflect.DeepEqual(s.request, want) {
		t.Errorf("the request is %+v", s.request)
	}
}
