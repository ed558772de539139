package k8s

import (
	"net/http"
	"strings"
	"testing"
)

// TestTryChangesNothing lets the server refuse a request at a time: the user hears of it, or it is one that says nothing of
// what would come.
func TestTryChangesNothing(t *testing.T) {
	t.Parallel()
	const denied = `pods "web-telepresence-5e55" is forbidden: ValidatingAdmissionPolicy 'ours' with binding 'ours' denied request: no proxies here`
	const full = `pods "web-telepresence-5e55" is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2`
	tests := map[string]struct {
		method         string
		status         int
		message        string
		originalsFirst bool
		want           string // "" where the session may go on
	}{
		"all is well": {},
		"a policy":    {method: http.MethodPost, status: 422, message: denied, want: "making the proxy pod: not allowed: ValidatingAdmissionPolicy 'ours'"},
		"a policy on scaling": {
			method: http.MethodPatch, status: 422, originalsFirst: true,
			message: `deployments.apps "web" is forbidden: ValidatingAdmissionPolicy 'ours' with binding 'ours' denied request: hands off`,
			want:    "scaling deployment/web to 0: not allowed: ValidatingAdmissionPolicy 'ours'",
		},
		"a full quota":       {method: http.MethodPost, status: 403, message: full, want: `making the proxy pod: quota "few" leaves no room`},
		"a quota to be free": {method: http.MethodPost, status: 403, message: full, originalsFirst: true},
		"a webhook with side effects": {
			method: http.MethodPost, status: 400, message: `admission webhook "w.example" does not support dry run`,
		},
		"a server that is away": {method: http.MethodPost, status: 503, message: "later"},
		"no right to scale": {
			method: http.MethodPatch, status: 403, originalsFirst: true,
			message: `deployments.apps "web" is forbidden: User "me" cannot patch resource "deployments" in API group "apps" in the namespace "ns"`,
			want:    `scaling deployment/web to 0: user "me" may not patch deployments.apps`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, c := newWorld(t)
			p := makePlan(t, c)
			p.OriginalsFirst = test.originalsFirst
			if test.originalsFirst {
				p.Strategy = "scale"
			}
			w.refuse = func(method, path string) (int, string) {
				if method == test.method && !strings.Contains(path, "selfsubject") {
					return test.status, test.message
				}
				return 0, ""
			}
			err := c.Try(t.Context(), p)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("got %q, want nothing", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			}
			if changes := w.changes(); len(changes) > 0 {
				t.Errorf("changed: %q", changes)
			}
		})
	}
}
