package repo

import (
	"strings"
	"testing"
)

// planted is a small tree and the rules it breaks: "rule path:line" each, or
// none for text that only comes close.
type planted struct {
	name  string
	files map[string]string
	want  []string
}

// one is a tree of one documented package.
func one(path, code string) map[string]string {
	name := "x"
	if strings.HasPrefix(path, "cmd/") {
		return map[string]string{path: "// Command " + strings.Split(path, "/")[1] + " does a thing.\npackage main\n" + code}
	}
	return map[string]string{path: "// Package x does a thing.\npackage " + name + "\n" + code}
}

// TestRulesFire proves that each rule sees what it is for, at the right line,
// and nothing else.
func TestRulesFire(t *testing.T) {
	t.Parallel()
	fired := map[string]bool{}
	cases := [][]planted{plantedForm(), plantedImports(), plantedErrors(), plantedOutput(), plantedFlow(), plantedText()}
	for _, group := range cases {
		for _, c := range group {
			tr, err := parseTree(asText(c.files))
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			var got []string
			for _, r := range rules() {
				for _, v := range violations(tr, r) {
					where, _, _ := strings.Cut(v.String(), ": ")
					got = append(got, r.name+" "+where)
					fired[r.name] = true
				}
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
			}
		}
	}
	for _, r := range rules() {
		if !fired[r.name] {
			t.Errorf("rule %s was never seen to fire", r.name)
		}
	}
}

func asText(files map[string]string) map[string][]byte {
	texts := map[string][]byte{}
	for path, text := range files {
		texts[path] = []byte(text)
	}
	return texts
}

func plantedForm() []planted {
	const p = "pkg/x/x.go"
	long := strings.Repeat("\n\tn++", maxFuncLines)
	return []planted{
		{"clean", one(p, "\n// A is one.\nconst A = 1\n"), nil},
		{"not gofmted", one(p, "\nconst  a = 1\n"), []string{"gofmt " + p + ":1"}},
		{"no package comment", map[string]string{p: "package x\n"}, []string{"package-comment " + p + ":1"}},
		{"package comment without a verb", map[string]string{p: "// Package x contains.\npackage x\n", "pkg/y/y.go": "// Package y\npackage y\n"}, []string{"package-comment pkg/y/y.go:1"}},
		{"another package's comment", map[string]string{p: "// Package y does a thing.\npackage x\n"}, []string{"package-comment " + p + ":1"}},
		{"a program's comment", map[string]string{"cmd/z/z.go": "// Package main does a thing.\npackage main\n"}, []string{"package-comment cmd/z/z.go:1"}},
		{"a drawer", map[string]string{"pkg/util/x.go": "// Package x does a thing.\npackage x\n"}, []string{"package-name pkg/util/x.go:2"}},
		{"a drawer by clause", map[string]string{"pkg/ok/x.go": "// Package helper does a thing.\npackage helper\n"}, []string{"package-name pkg/ok/x.go:2"}},
		{"exported without comment", one(p, "\ntype T struct{}\n\nfunc (T) M() {}\n\nfunc F() {}\n\nvar V int\n"), []string{"exported-doc " + p + ":4", "exported-doc " + p + ":6", "exported-doc " + p + ":8", "exported-doc " + p + ":10"}},
		{"a group's comment", one(p, "\n// The letters.\nconst (\n\tA = iota\n\tB\n)\n\ntype t struct{}\n\nfunc (t) M() {}\n"), nil},
		{"a getter", one(p, "\nfunc (t t) GetName() {}\n\ntype t struct{}\n\nfunc Getattr() {} // not one\n"), []string{"exported-doc " + p + ":8", "no-getter " + p + ":4"}},
		{"a long file", one(p, strings.Repeat("\n// more", maxFileLines)+"\n"), []string{"file-length " + p + ":403"}},
		{"a long function", one(p, "\nfunc f() (n int) {"+long+"\n\treturn n\n}\n"), []string{"func-length " + p + ":4"}},
		{"a long table", one("pkg/x/x_test.go", "\nvar f = func() {}\n\nfunc g() []int {\n\treturn []int{"+strings.Repeat("\n\t\t1,", maxFuncLines)+"\n\t}\n}\n"), nil},
		{"init", one(p, "\nfunc init() {}\n"), []string{"no-init " + p + ":4"}},
		{"init for a reason", one(p, "\nfunc init() {} //nolint:gochecknoinits // a library wants it\n"), nil},
	}
}

func plantedImports() []planted {
	src := func(name, path string) string {
		return "// Package " + name + " does a thing.\npackage " + name + "\n\nimport _ \"" + path + "\"\n"
	}
	return []planted{
		{"allowed", map[string]string{"pkg/proxy/p.go": src("proxy", module+"/pkg/proxy/resume")}, nil},
		{"not listed", map[string]string{"pkg/new/n.go": src("new", module+"/pkg/proxy")}, []string{"imports pkg/new/n.go:4"}},
		{"not allowed", map[string]string{"pkg/k8s/k.go": src("k8s", module+"/pkg/proxy")}, []string{"imports pkg/k8s/k.go:4"}},
		{"a test may", map[string]string{"pkg/k8s/k_test.go": src("k8s", module+"/pkg/proxy")}, nil},
		{"banned", map[string]string{"pkg/k8s/plan/p.go": src("plan", "k8s.io/client-go/rest")}, []string{"imports pkg/k8s/plan/p.go:4"}},
		{"not the banned one", map[string]string{"pkg/k8s/plan/p.go": src("plan", "k8s.io/api/core/v1")}, nil},
		{"banned at one remove", map[string]string{
			"pkg/vpn/host/h.go": src("host", module+"/pkg/vpn/tun"),
			"pkg/vpn/tun/t.go":  src("tun", "gvisor.dev/gvisor/pkg/tcpip"),
		}, []string{"imports pkg/vpn/tun/t.go:4"}},
		{"not the standard library", map[string]string{"pkg/k8s/undo/u.go": src("undo", "golang.org/x/sync/errgroup")}, []string{"imports pkg/k8s/undo/u.go:4"}},
		{"the standard library", map[string]string{"pkg/k8s/undo/u.go": src("undo", "net/http")}, nil},
	}
}

func plantedErrors() []planted {
	const p = "pkg/x/x.go"
	with := func(expr string) map[string]string {
		return one(p, "\nimport (\n\t\"errors\"\n\t\"fmt\"\n)\n\nvar _ = "+expr+"\n")
	}
	bad := []string{"error-style " + p + ":9"}
	return []planted{
		{"an error", with(`fmt.Errorf("scaling %q: %w", "web", errors.ErrUnsupported)`), nil},
		{"an acronym", with(`errors.New("DNS is away")`), nil},
		{"a name", with(`errors.New("HTTPProxy is away...")`), nil},
		{"failed to", with(`errors.New("failed to scale")`), bad},
		{"capital", with(`fmt.Errorf("Scaling %d", 1)`), bad},
		{"full stop", with(`errors.New("scaling " + "it.")`), bad},
		{"newline", with(`errors.New("scaling\n")`), bad},
		{"empty", with(`errors.New("")`), bad},
	}
}

func plantedOutput() []planted {
	const p, tui, list = "pkg/x/x.go", "cmd/telepresence/tui.go", "cmd/telepresence/list.go"
	use := func(path, imp, expr string) map[string]string {
		return one(path, "\nimport \""+imp+"\"\n\nfunc f() { "+expr+" }\n")
	}
	at := func(path string) []string { return []string{"output " + path + ":6"} }
	return []planted{
		{"print", use(p, "fmt", "fmt.Println()"), at(p)},
		{"a writer", use(p, "fmt", "fmt.Fprintln(nil)"), nil},
		{"stderr", use(p, "os", "_ = os.Stderr"), at(p)},
		{"stderr in a test", use("pkg/x/x_test.go", "os", "_ = os.Stderr"), nil},
		{"exit", use(p, "os", "os.Exit(1)"), at(p)},
		{"exit outside main", use("cmd/z/z.go", "os", "os.Exit(1)"), at("cmd/z/z.go")},
		{"exit in main", one("cmd/z/z.go", "\nimport \"os\"\n\nfunc main() { os.Exit(1) }\n"), nil},
		{"log", use(p, "log", "log.Print()"), at(p)},
		{"the global logger", use(p, "log/slog", "slog.Info(p)"), at(p)},
		{"a logger", use(p, "log/slog", "slog.New(nil)"), nil},
		{"tui.go", use(tui, "os", "_ = os.Stdout"), nil},
		{"beside tui.go", use(list, "os", "_ = os.Stdout"), at(list)},
		{"Fprint beside tui.go", use(list, "fmt", "fmt.Fprint(nil)"), at(list)},
		{"Fprint to a buffer", use(list, "fmt", "fmt.Fprint(&b)"), nil},
		{"Print in tui.go", use(tui, "fmt", "fmt.Print()"), at(tui)},
		{"another program", use("cmd/z/z.go", "fmt", "fmt.Println()"), nil},
	}
}

func plantedFlow() []planted {
	const p, test = "pkg/x/x.go", "pkg/x/x_test.go"
	ctx := func(path, code string) map[string]string {
		return one(path, "\nimport \"context\"\n\n"+code+"\n")
	}
	at := func(rule, path string) []string { return []string{rule + " " + path + ":6"} }
	return []planted{
		{"go", one(p, "\nfunc f() {\n\tgo f()\n}\n"), []string{"goroutine " + p + ":5"}},
		{"AfterFunc", ctx(p, "var _ = context.AfterFunc"), at("goroutine", p)},
		{"ctx second", ctx(p, "func f(n int, ctx context.Context) {}"), at("context-first", p)},
		{"ctx second in a literal", ctx(p, "var _ = func(n int, ctx context.Context) {}"), at("context-first", p)},
		{"ctx after t", one(test, "\nimport (\n\t\"context\"\n\t\"testing\"\n)\n\nfunc f(t *testing.T, ctx context.Context) {}\n"), nil},
		{"Background", ctx(p, "var _ = context.Background()"), at("context-root", p)},
		{"Background in a test", ctx(test, "var _ = context.Background()"), nil},
		{"TODO", ctx(test, "var _ = context.TODO()"), at("context-root", test)},
		{"WithValue", ctx(p, "var _ = context.WithValue"), at("context-shelf", p)},
		{"ctx in a struct", ctx(p, "type t struct{ ctx context.Context }"), at("context-shelf", p)},
		{"ctx with a life", ctx(p, "type t struct {\n\tctx context.Context // ends with Close\n}"), nil},
		{"sleep", one(test, "\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"), at("no-sleep", test)},
		{"sleep outside tests", one(p, "\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"), nil},
		{"sleep in a bubble", one(test, "\nimport (\n\t\"testing/synctest\"\n\t\"time\"\n)\n\nfunc f() { synctest.Test(nil, func() { time.Sleep(1) }) }\n"), nil},
	}
}

func plantedText() []planted {
	const p = "pkg/x/x.go"
	return []planted{
		{"nolint", one(p, "\nvar _ = 1 //nolint\n"), []string{"nolint-reason " + p + ":4"}},
		{"nolint without a reason", one(p, "\nvar _ = 1 //nolint:unused\n"), []string{"nolint-reason " + p + ":4"}},
		{"nolint with a reason", one(p, "\nvar _ = 1 //nolint:unused // it is\n"), nil},
		{"to do", one(p, "\n// f is not done, TODO: finish.\nfunc f() {}\n"), []string{"todo-issue " + p + ":4"}},
		{"to do in an issue", one(p, "\n// f is not done, TODO(#12): finish.\nfunc f() {}\n"), nil},
		{"merge marker", map[string]string{"a.md": "a\n<<<<<<< HEAD\nb\n"}, []string{"merge-marker a.md:2"}},
		{"heading", map[string]string{"a.md": "a\n=======\n"}, nil},
		{"links", map[string]string{
			"a.md":   "[b](b/c.md), [d](b/c.md#a-heading-of-cs) and [e](https://e.org/x), [f](#here)\n\n## Here\n\n```\n[no](link)\n# No heading\n```\n`[no](link)`\n",
			"b/c.md": "# A heading of `C`'s\n\n[a](../a.md#here)\n",
		}, nil},
		{"dead links", map[string]string{
			"a.md":   "[b](b/d.md)\n[c](b/c.md#nowhere)\n[d](#no-heading)\n\n```\n# No heading\n```\n",
			"b/c.md": "![a](a.png)\n",
		}, []string{"links a.md:1", "links a.md:2", "links a.md:3", "links b/c.md:1"}},
		{"messages", map[string]string{
			p:            "// Package x does a thing.\npackage x\n\nconst a = \"there is no %q in %s\"\n",
			messagesPage: "# Page\n\n### there is no …\n\n### there was no …\n",
		}, []string{"messages " + messagesPage + ":5"}},
		{"machine path", map[string]string{"a.md": "in /root/go/pkg, /home/me/src/x\n"}, []string{"machine-path a.md:1"}},
		{"a path", map[string]string{"a.md": "docker run -w /workspace/src, /home/me/code\n"}, nil},
	}
}
