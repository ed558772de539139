package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// apply makes objects of the user's be as the files say, and waits until the
// workloads among them are ready.
func (s *script) apply(ts *testscript.TestScript, files []string) (string, error) {
	for _, file := range files {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		if err := s.applyText(ts, text); err != nil {
			return "", err
		}
	}
	return "", nil
}

func (s *script) applyText(ts *testscript.TestScript, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	names, err := s.runInput(ctx, ts, nil, text, "kubectl", "apply", "--filename=-", "--output=name")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(names) {
		kind, _, _ := strings.Cut(name, "/")
		switch kind {
		case "deployment.apps", "statefulset.apps":
			_, err = s.run(ts, nil, "kubectl", "rollout", "status", name, "--timeout="+patience.String())
		case "pod":
			_, err = s.run(ts, nil, "kubectl", "wait", "--for=condition=Ready", name, "--timeout="+patience.String())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deploy makes deployments of the sample app, each with a service.
func (s *script) deploy(ts *testscript.TestScript, args []string) (string, error) {
	flags := flag.NewFlagSet("deploy", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	replicas := flags.Int("replicas", 1, "")
	linger := flags.Int("linger", 0, "seconds that a pod goes on serving after it was told to end")
	if err := flags.Parse(args); err != nil || flags.NArg() == 0 {
		return "", errors.New("usage: deploy [-replicas N] [-linger SECONDS] NAME…")
	}
	var texts []string
	for _, name := range flags.Args() {
		texts = append(texts, fmt.Sprintf(deployment, name, *replicas, *linger, s.cluster.appImage))
	}
	return "", s.applyText(ts, strings.Join(texts, "---\n"))
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  annotations: {owner: the team}
spec:
  replicas: %[2]d
  selector:
    matchLabels: {app: %[1]s}
  template:
    metadata:
      labels: {app: %[1]s}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: app
        image: %[4]s
        args: [serve, --name, the cluster]
        env:
        - {name: GREETING, value: hello}
        ports:
        - {name: http, containerPort: 8080}
        readinessProbe:
          httpGet: {path: /, port: http}
          periodSeconds: 1
        lifecycle:
          preStop:
            sleep: {seconds: %[3]d}
---
apiVersion: v1
kind: Service
metadata:
  name: %[1]s
spec:
  selector: {app: %[1]s}
  ports:
  - {name: http, port: 80, targetPort: http}
`

// incluster runs a request of the sample app's in a pod beside the others.
func (s *script) incluster(ts *testscript.TestScript, args []string) (string, error) {
	const client = "incluster"
	asAdmin := []string{"KUBECONFIG=" + s.cluster.kubeconfig}
	if _, err := s.run(ts, asAdmin, "kubectl", "--namespace", s.namespace, "get", "pod", client); err != nil {
		if err := s.applyText(ts, fmt.Sprintf(clientPod, client, s.cluster.appImage)); err != nil {
			return "", err
		}
	}
	args = append([]string{"--namespace", s.namespace, "exec", client, "--", "/app"}, args...)
	return s.run(ts, asAdmin, "kubectl", args...)
}

const clientPod = `apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: client
    image: %[2]s
    args: [serve, --name, %[1]s]
    readinessProbe:
      httpGet: {path: /, port: 8080}
      periodSeconds: 1
`

// workload is an object without what the server adds to it.
func (s *script) workload(ts *testscript.TestScript, args []string) (string, error) {
	if len(args) != 1 {
		return "", errors.New("usage: workload KIND/NAME")
	}
	text, err := s.run(ts, nil, "kubectl", "get", args[0], "--output=yaml")
	if err != nil {
		return "", err
	}
	var object unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		return "", err
	}
	for _, field := range []string{"resourceVersion", "generation", "managedFields"} {
		unstructured.RemoveNestedField(object.Object, "metadata", field)
	}
	delete(object.Object, "status")
	kept, err := yaml.Marshal(object.Object)
	return string(kept), err
}

// leftovers names what carries a session's label, whoever owns it.
func (s *script) leftovers(ts *testscript.TestScript, _ []string) (string, error) {
	found, err := s.run(ts, []string{"KUBECONFIG=" + s.cluster.kubeconfig}, "kubectl", "--namespace", s.namespace,
		"get", "pods,secrets,leases,services,deployments,configmaps,replicasets,networkpolicies",
		"--selector=telepresence.io/session", "--output=name")
	if err == nil && found != "" {
		err = errors.New("left behind: " + strings.Join(strings.Fields(found), " "))
	}
	return found, err
}

// as goes on as another user.
func (s *script) as(ts *testscript.TestScript, args []string) (string, error) {
	role := "edit"
	if len(args) == 3 && args[0] == "-role" {
		role, args = args[1], args[2:]
	}
	if len(args) != 1 {
		return "", errors.New("usage: as [-role ROLE] USER")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience+30*time.Second)
	defer cancel()
	kubeconfig, err := s.kubeconfig(ctx, args[0], role)
	if err == nil {
		ts.Setenv("KUBECONFIG", kubeconfig)
	}
	return "", err
}

// admin runs a program as the administrator, in the script's namespace where
// that is kubectl.
func (s *script) admin(ts *testscript.TestScript, args []string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("usage: admin PROGRAM…")
	}
	program, args := args[0], args[1:]
	if program == "kubectl" {
		args = append([]string{"--namespace", s.namespace}, args...)
	}
	return s.run(ts, []string{"KUBECONFIG=" + s.cluster.kubeconfig}, program, args...)
}

// evidence is what tells why a script failed.
func (s *script) evidence() string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.logs() + s.state(ctx)
}
