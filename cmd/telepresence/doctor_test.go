package main

import (
	"context"
	"errors"
	"testing"

	"github.com/telepresence/telepresence/pkg/doctor"
)

func holds(detail string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return detail, nil }
}

func breaks(err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return "", err }
}

// TestDoctor checks what is printed, and when it is a failure.
func TestDoctor(t *testing.T) {
	t.Parallel()
	cluster := checkGroup{title: "cluster", must: true, checks: []doctor.Check{
		{Name: "server", Run: holds("v1.34.4")},
		{Name: "namespace", Run: holds("")},
	}}
	one := checkGroup{title: "inject-tcp", method: true, checks: []doctor.Check{
		{Name: "user namespaces", Run: breaks(errors.New("switched off")), Fix: "switch them on"},
	}}
	two := checkGroup{title: "container", method: true, checks: []doctor.Check{
		{Name: "docker", Run: breaks(hinted{}), Fix: "not this"},
	}}
	good := checkGroup{title: "vpn-tcp", method: true, checks: []doctor.Check{{Name: "sudo", Run: holds("")}}}
	bad := checkGroup{title: "cluster", must: true, checks: []doctor.Check{{Name: "server", Run: breaks(errors.New("away"))}}}
	const clusterText = "cluster\n  ✓ server: v1.34.4\n  ✓ namespace\n"
	const oneText = "inject-tcp\n  ✗ user namespaces: switched off\n      fix: switch them on\n"
	for _, tt := range []struct {
		name   string
		groups []checkGroup
		want   string
		fault  string
	}{
		{"a method works", []checkGroup{cluster, one, good}, clusterText + oneText + "vpn-tcp\n  ✓ sudo\n", ""},
		{"no method works", []checkGroup{cluster, one, two}, clusterText + oneText + "container\n  ✗ docker: it broke\n      fix: mend it\n", "a session can't work: no method is complete"},
		{"no cluster", []checkGroup{bad, good}, "cluster\n  ✗ server: away\nvpn-tcp\n  ✓ sudo\n", `a session can't work: see "cluster" above`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCall(t)
			fault := ""
			findings := runChecks(t.Context(), tt.groups)
			if err := c.showFindings(findings); err != nil {
				t.Fatal(err)
			}
			if err := verdict(tt.groups, findings); err != nil {
				fault = err.Error()
			}
			if got := c.stderr.String(); got != tt.want || fault != tt.fault {
				t.Errorf("got %q, fault %q\nwant %q, fault %q", got, fault, tt.want, tt.fault)
			}
		})
	}
}
