package k8s

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

func forbiddenBecause(message string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web-x", fmt.Errorf("%s", message))
}

func TestExplain(t *testing.T) {
	t.Parallel()
	c, err := connect(&rest.Config{Host: "https://api.example:6443"}, "prod", "shop")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		err  error
		want string
		hint string
	}{
		"missing right": {
			err:  forbiddenBecause(`User "bob" cannot patch resource "deployments" in API group "apps" in the namespace "shop"`),
			want: `user "bob" may not patch deployments.apps in namespace "shop"`,
			hint: "docs/rights.yaml",
		},
		"missing right in the cluster": {
			err:  forbiddenBecause(`User "bob" cannot list resource "nodes" in API group "" at the cluster scope`),
			want: `user "bob" may not list nodes in the cluster`,
			hint: "docs/rights.yaml",
		},
		"quota": {
			err:  forbiddenBecause("exceeded quota: small, requested: limits.cpu=500m, used: limits.cpu=2, limited: limits.cpu=2"),
			want: `quota "small" leaves no room: limits.cpu=500m wanted, limits.cpu=2 of limits.cpu=2 used`,
			hint: "free some",
		},
		"pod security": {
			err:  forbiddenBecause(`violates PodSecurity "restricted:latest": runAsNonRoot != true`),
			want: `the namespace's pod security level does not let it in: it violates PodSecurity "restricted:latest": runAsNonRoot != true`,
			hint: "securityContext",
		},
		"another admission plugin": {
			err:  forbiddenBecause("Unable to create new content in namespace shop because it is being terminated"),
			want: "not allowed: unable to create new content in namespace shop because it is being terminated",
		},
		"webhook": {
			err:  apierrors.NewBadRequest(`admission webhook "validate.example" denied the request: no tag`),
			want: `admission webhook "validate.example" denied the request: no tag`,
		},
		"credentials": {
			err:  apierrors.NewUnauthorized("Unauthorized"),
			want: `the cluster does not accept the credentials of context "prod"`,
			hint: "log in",
		},
		"unreachable": {
			err:  &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED},
			want: "no answer from the cluster at https://api.example:6443: dial tcp: connection refused",
			hint: "VPN",
		},
		"timed out": {err: fmt.Errorf("asking: %w", context.DeadlineExceeded), want: "no answer from the cluster at https://api.example:6443: timed out", hint: "VPN"},
		"exec plugin": {
			err:  errors.New(`getting credentials: exec: executable aws not found`),
			want: `the credentials of context "prod" are not to be had: getting credentials: exec: executable aws not found`,
			hint: "by hand",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, doing := range []string{"", "doing it"} {
				got := c.explain(doing, test.err)
				want := test.want
				if doing != "" {
					want = doing + ": " + want
				}
				if got.Error() != want {
					t.Errorf("said %q, want %q", got, want)
				}
				if hint := got.(interface{ Hint() string }).Hint(); !strings.Contains(hint, test.hint) || hint == "" != (test.hint == "") {
					t.Errorf("hint %q, want %q", hint, test.hint)
				}
				if !errors.Is(got, test.err) {
					t.Error("the cause is lost")
				}
			}
		})
	}
}

func TestWrongCertificateIsExplained(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	c, err := connect(&rest.Config{Host: server.URL}, "prod", "shop")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "the certificate of "+server.URL) {
		t.Errorf("checking: %v", err)
	}
}

func TestPassing(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		apierrors.NewServiceUnavailable("starting"):                             true,
		apierrors.NewTooManyRequests("slow down", 1):                            true,
		apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "x"):      false,
		apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "x", nil): false,
		syscall.ECONNREFUSED:  true,
		context.Canceled:      false,
		errors.New("no idea"): false,
		&trouble{what: "wrapped", err: apierrors.NewTimeoutError("late", 1)}: true,
	} {
		if got := passing(err); got != want {
			t.Errorf("%v passes: %v", err, got)
		}
	}
}

func TestLowerFirst(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Readiness probe failed.": "readiness probe failed",
		"HTTP probe failed":       "HTTP probe failed",
		"ConfigMap is missing":    "ConfigMap is missing",
		"0/2 nodes":               "0/2 nodes",
		"":                        "",
		"A":                       "A",
	} {
		if got := lowerFirst(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
