package plan

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the plans in testdata")

// TestGolden makes a plan of each testdata/*.txtar: `args`, the command line's
// words; `cluster.yaml`, what was read from the cluster; `plan.yaml`, what
// --dry-run prints, or `refusal`, the error and its hint.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			golden(t, file)
		})
	}
}

func golden(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	section := func(name string) string {
		for _, f := range archive.Files {
			if f.Name == name {
				return string(f.Data)
			}
		}
		return ""
	}
	request := readArgs(t, section("args"))
	snapshot := readCluster(t, section("cluster.yaml"), request)
	before := readCluster(t, section("cluster.yaml"), request)
	p, err := Make(snapshot, request)
	if !reflect.DeepEqual(snapshot, before) {
		t.Error("the snapshot was changed")
	}
	var name, got string
	if err != nil {
		name, got = "refusal", refusal(err)
	} else {
		name, got = "plan.yaml", printedPlan(t, p)
		checkKept(t, snapshot, p)
		checkRecord(t, p)
		checkCached(t, snapshot, request, got)
	}
	if want := section(name); got != want {
		if !*update {
			t.Fatalf("%s is\n%s\nwant\n%s\n(go test ./pkg/k8s/plan -update rewrites it)", name, got, want)
		}
		archive.Files = append(archive.Files[:2], txtar.File{Name: name, Data: []byte(got)})
		if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// printedPlan is what --dry-run prints.
func printedPlan(t *testing.T, p *Plan) string {
	t.Helper()
	text, err := p.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("SECRET")) {
		t.Error("a key is printed")
	}
	return string(text)
}

// refusal is what the user reads of an error.
func refusal(err error) string {
	text := err.Error() + "\n"
	if hinted, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok && hinted.Hint() != "" {
		text += "hint: " + hinted.Hint() + "\n"
	}
	if _, ok := errors.AsType[*UsageError](err); ok {
		text += "(exit code 2)\n"
	}
	return text
}

// readArgs reads the words of a command line: flags first, one a line or several.
func readArgs(t *testing.T, text string) Request {
	t.Helper()
	r := Request{
		Session: "0a1b2c3d", Owner: "ada@laptop", Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		AgentImage: "registry.example/telepresence-agent:1.0",
		Keys:       Keys{HostKey: []byte("SECRET"), ClientPublic: []byte("SECRET"), Token: []byte("SECRET")},
	}
	words := strings.Fields(text)
	for i := 0; i+1 < len(words); i += 2 {
		var err error
		switch value := words[i+1]; words[i] {
		case "--swap-deployment":
			r.Operation = Swap
			r.Target, err = ParseTarget(value)
		case "--new-deployment":
			r.Operation = New
			r.Target, err = ParseTarget(value)
		case "--deployment":
			r.Operation = Standing
			r.Target, err = ParseTarget(value)
		case "--expose":
			var e Expose
			e, err = ParseExpose(value)
			r.Expose = append(r.Expose, e)
		case "--to-pod", "--from-pod":
			var port Port
			port, err = ParsePort(value)
			if words[i] == "--to-pod" {
				r.ToPod = append(r.ToPod, port)
			} else {
				r.FromPod = append(r.FromPod, port)
			}
		case "--serviceaccount":
			r.ServiceAccount = value
		case "read-image": // no flag: what the session finds out
			r.ReadImage = value == "true"
		default:
			t.Fatalf("args: %s", words[i])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// held is how cluster.yaml says that somebody's session is on the workload.
type held struct {
	Owner, Session, Container string
	Since                     time.Time
	Alive                     bool
}

func readCluster(t *testing.T, text string, r Request) Snapshot {
	t.Helper()
	s := Snapshot{Namespace: "shop"}
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var meta struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
			t.Fatal(err)
		}
		if err := readObject(&s, meta.Kind, []byte(doc), r); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
	}
	return s
}

// readObject puts one document of cluster.yaml where the snapshot has it.
func readObject(s *Snapshot, kind string, doc []byte, r Request) error {
	switch kind {
	case "Deployment", "StatefulSet", "ReplicaSet", "Rollout":
		return readWorkload(s, kind, doc)
	case "Service":
		return add(&s.Services, doc)
	case "HorizontalPodAutoscaler":
		return add(&s.HPAs, doc)
	case "ResourceQuota":
		return add(&s.Quotas, doc)
	case "LimitRange":
		return add(&s.LimitRanges, doc)
	case "PersistentVolumeClaim":
		return add(&s.Claims, doc)
	case "ServiceAccount":
		var a corev1.ServiceAccount
		err := yaml.UnmarshalStrict(doc, &a)
		s.ServiceAccounts = append(s.ServiceAccounts, a.Name)
		return err
	case "PodDisruptionBudget":
		return add(&s.Budgets, doc)
	case "Pod":
		if r.Operation == Swap {
			return add(&s.Originals, doc)
		}
		s.Standing = new(corev1.Pod)
		return yaml.UnmarshalStrict(doc, s.Standing)
	case "NoClaims": // they were read, and there are none
		s.Claims = []corev1.PersistentVolumeClaim{}
		return nil
	case "Held":
		var h held
		err := yaml.Unmarshal(doc, &h)
		s.Held = &Holder{Owner: h.Owner, Session: SessionID(h.Session), Container: h.Container, Since: h.Since, Alive: h.Alive}
		return err
	case "Taken":
		s.Taken = fmt.Sprintf("service %q", r.Target.Name)
		return nil
	case "":
		return nil
	}
	return fmt.Errorf("kind %q is not one of a snapshot's", kind)
}

// add reads one object more into a list.
func add[T any](list *[]T, doc []byte) error {
	var one T
	err := yaml.UnmarshalStrict(doc, &one)
	*list = append(*list, one)
	return err
}

// rollout is the part of an Argo Rollout that is every workload's.
type rollout struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              appsv1.ReplicaSetSpec
}

func readWorkload(s *Snapshot, kind string, doc []byte) error {
	w := &Workload{APIVersion: "apps/v1", Kind: kind, Resource: strings.ToLower(kind) + "s"}
	s.Workload = w
	var meta metav1.ObjectMeta
	var replicas *int32
	switch kind {
	case "Deployment":
		var d appsv1.Deployment
		if err := yaml.UnmarshalStrict(doc, &d); err != nil {
			return err
		}
		meta, replicas, w.Template, w.Selector, w.Paused, w.Update = d.ObjectMeta, d.Spec.Replicas, d.Spec.Template, d.Spec.Selector, d.Spec.Paused, d.Spec.Strategy
		if d.Annotations["test/replicaset"] != "none" {
			w.ReplicaSet = &ReplicaSet{Name: d.Name + "-5d5f", UID: "uid-rs", Hash: "5d5f"}
		}
	case "StatefulSet":
		var d appsv1.StatefulSet
		if err := yaml.UnmarshalStrict(doc, &d); err != nil {
			return err
		}
		meta, replicas, w.Template, w.Selector = d.ObjectMeta, d.Spec.Replicas, d.Spec.Template, d.Spec.Selector
		w.ServiceName, w.VolumeClaimTemplates = d.Spec.ServiceName, d.Spec.VolumeClaimTemplates
		if d.Spec.Ordinals != nil {
			w.Ordinal = d.Spec.Ordinals.Start
		}
	default:
		var d rollout
		if err := yaml.UnmarshalStrict(doc, &d); err != nil {
			return err
		}
		meta, replicas, w.Template, w.Selector = d.ObjectMeta, d.Spec.Replicas, d.Spec.Template, d.Spec.Selector
		if kind == "Rollout" {
			w.APIVersion = d.APIVersion
		}
	}
	w.Name, w.UID, w.Replicas = meta.Name, "uid-"+meta.Name, *replicas
	if c := metav1.GetControllerOf(&meta); c != nil {
		w.Controller = c.Kind + " " + c.Name
	}
	return nil
}
