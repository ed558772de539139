package plan

import (
	"strings"
	"testing"
)

func TestParseExpose(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Expose{"80": {80, 80}, "8080:80": {8080, 80}, "65535": {65535, 65535}} {
		if got, err := ParseExpose(text); err != nil || got != want {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                     `"" is not a port number`,
		"abc":                  `"abc" is not a port number`,
		"70000":                "port 70000 is not between 1 and 65535",
		"0":                    "port 0 is not between 1 and 65535",
		"80:":                  `"" is not a port number`,
		"8:9:10":               `"9:10" is not a port number`,
		"-1":                   `"-1" is not a port number`,
		"99999999999999999999": "port 99999999999999999999 is not between 1 and 65535",
	} {
		if _, err := ParseExpose(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: error is %v, want %s", text, err, want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Target{
		"web":                     {KindDeployment, "web", ""},
		"web:app":                 {KindDeployment, "web", "app"},
		"deploy/web":              {KindDeployment, "web", ""},
		"sts/web:app":             {KindStatefulSet, "web", "app"},
		"ReplicaSet/web":          {KindReplicaSet, "web", ""},
		"rollouts.argoproj.io/my": {"rollouts.argoproj.io", "my", ""},
		"a.b":                     {KindDeployment, "a.b", ""},
		"rollout/web":             {"rollouts.argoproj.io", "web", ""},
		"dc/web:app":              {"deploymentconfigs.apps.openshift.io", "web", "app"},
		"Deployments.Apps/web":    {KindDeployment, "web", ""},
	} {
		if got, err := ParseTarget(text); err != nil || got != want {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":", "web:", ":app", "/web", "a/b/c", "Web", "we b", "web:a:b", "-web", "web-", "a/", strings.Repeat("a", 254), "ds/web", "pod/web", "Jobs/web", "svc/web"} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%q was taken for %v", text, got)
		}
	}
}

func TestTargetNames(t *testing.T) {
	t.Parallel()
	for target, want := range map[Target][2]string{
		{KindDeployment, "web", "app"}:      {"web", "telepresence-deployment-web"},
		{"", "web", ""}:                     {"web", "telepresence-deployment-web"},
		{KindStatefulSet, "web", ""}:        {"statefulset/web", "telepresence-statefulset-web"},
		{"rollouts.argoproj.io", "web", ""}: {"rollouts.argoproj.io/web", "telepresence-rollouts-web"},
	} {
		if target.Flag() != want[0] || target.Resource() != want[1] {
			t.Errorf("%+v is %s and %s", target, target.Flag(), target.Resource())
		}
	}
	long, other := Target{Name: strings.Repeat("a", 253)}, Target{Name: strings.Repeat("a", 252) + "b"}
	if len(long.Resource()) != longest || long.Resource() == other.Resource() {
		t.Errorf("a long name is %s, and another %s", long.Resource(), other.Resource())
	}
}

// What ParseExpose takes, it takes again from String, as the same.
func FuzzParseExpose(f *testing.F) {
	for _, text := range []string{"80", "8080:80", "0", "1:2:3", "+1", "٣"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseExpose(text)
		if err != nil {
			return
		}
		if again, err := ParseExpose(e.String()); err != nil || again != e {
			t.Errorf("%q is %v, and that %v, %v", text, e, again, err)
		}
	})
}

// What ParseTarget takes can stand in a path and in an object's name.
func FuzzParseTarget(f *testing.F) {
	for _, text := range []string{"web", "deploy/web:app", "../x", "a/b/c", "rollouts.argoproj.io/x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := ParseTarget(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(target.Resource(), "/: %") || strings.Contains(target.Name, "/") {
			t.Errorf("%q is %+v", text, target)
		}
	})
}
