package repo

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// checkErrorStyle looks at the text of every error made from a literal.
func checkErrorStyle(tr *tree, bad report) {
	for _, s := range tr.code {
		ast.Inspect(s.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			pkg, name := s.called(call.Fun)
			if pkg+"."+name != "fmt.Errorf" && pkg+"."+name != "errors.New" {
				return true
			}
			if text, ok := literal(call.Args[0]); ok {
				if fault := errorFault(text); fault != "" {
					bad(s.path, tr.line(call.Pos()), "error %q %s", text, fault)
				}
			}
			return true
		})
	}
}

// literal is the value of a string literal, or of several added up.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		left, ok := literal(e.X)
		right, also := literal(e.Y)
		return left + right, ok && also
	}
	return "", false
}

// errorFault says what is wrong with an error's text, or nothing.
func errorFault(text string) string {
	word, _, _ := strings.Cut(text, " ")
	switch {
	case text == "":
		return "says nothing"
	case regexp.MustCompile(`(?i)\bfailed to\b`).MatchString(text):
		return `says "failed to": say what was being done`
	case regexp.MustCompile(`^[A-Z][a-z]+[:,]?$`).MatchString(word):
		return "begins with a capital"
	case strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "..."), strings.HasSuffix(text, "!"):
		return "ends like a sentence"
	case unicode.IsSpace(rune(text[len(text)-1])):
		return "ends with a space"
	}
	return ""
}

// The files of cmd/telepresence that touch the terminal's streams: main.go
// hands them in, tui.go writes to them.
const (
	mainFile = "cmd/telepresence/main.go"
	tuiFile  = "cmd/telepresence/tui.go"
)

// checkOutput keeps the terminal for programs, and in cmd/telepresence for
// tui.go. A logger is handed in, never taken from the air.
func checkOutput(tr *tree, bad report) {
	global := []string{"Default", "SetDefault", "Debug", "Info", "Warn", "Error", "Log"}
	for _, s := range tr.code {
		inMain := mainFuncs(s)
		command := s.dir == "cmd/telepresence" && !s.test
		if command && s.path != tuiFile {
			checkFprint(tr, s, bad)
		}
		s.eachUse(func(sel *ast.SelectorExpr, pkg, name string) {
			what := pkg + "." + name
			line := tr.line(sel.Pos())
			switch {
			case pkg == "fmt" && strings.HasPrefix(name, "Print") && (!s.main() || s.test || command):
				bad(s.path, line, "%s writes to stdout", what)
			case pkg == "log" && !s.test:
				bad(s.path, line, "%s: take a *slog.Logger", what)
			case pkg == "log/slog" && slices.Contains(global, name):
				bad(s.path, line, "%s is the global logger: take a *slog.Logger", what)
			case what == "os.Exit" && !s.test && !inMain(sel.Pos()):
				bad(s.path, line, "os.Exit outside func main: return, so that clean-up happens")
			case (what == "os.Stdout" || what == "os.Stderr") && !s.test && !s.main():
				bad(s.path, line, "%s: take the stream as an argument", what)
			case (what == "os.Stdout" || what == "os.Stderr") && command && s.path != mainFile && s.path != tuiFile:
				bad(s.path, line, "%s: only tui.go writes", what)
			}
		})
	}
}

// checkFprint lets fmt.Fprint write only to a buffer of the function's own, &b.
func checkFprint(tr *tree, s *source, bad report) {
	ast.Inspect(s.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		pkg, name := s.called(call.Fun)
		address, ok := call.Args[0].(*ast.UnaryExpr)
		if own := ok && address.Op == token.AND; pkg == "fmt" && strings.HasPrefix(name, "Fprint") && !own {
			bad(s.path, tr.line(call.Pos()), "fmt.%s: only tui.go writes", name)
		}
		return true
	})
}

// mainFuncs is a test for positions inside func main of a program.
func mainFuncs(s *source) func(token.Pos) bool {
	return func(p token.Pos) bool {
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && s.main() && f.Recv == nil && f.Name.Name == "main" && f.Pos() <= p && p < f.End() {
				return true
			}
		}
		return false
	}
}

func checkGoroutine(tr *tree, bad report) {
	for _, s := range tr.code {
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				bad(s.path, tr.line(g.Pos()), "bare go statement: use sync.WaitGroup.Go or errgroup.Group.Go, and wait")
			}
			return true
		})
		s.eachUse(func(sel *ast.SelectorExpr, pkg, name string) {
			if name == "AfterFunc" && (pkg == "time" || pkg == "context") {
				bad(s.path, tr.line(sel.Pos()), "%s.AfterFunc starts what nobody waits for", pkg)
			}
		})
	}
}

// checkContextFirst lets only a test's T, B, F or TB stand before the context.
func checkContextFirst(tr *tree, bad report) {
	for _, s := range tr.code {
		ast.Inspect(s.ast, func(n ast.Node) bool {
			f, ok := n.(*ast.FuncType)
			if !ok || f.Params == nil {
				return true
			}
			before := 0
			for _, field := range f.Params.List {
				if isContext(s, field.Type) && before > 0 {
					bad(s.path, tr.line(field.Pos()), "context.Context is not the first parameter")
				}
				if !isTesting(s, field.Type) {
					before++
				}
			}
			return true
		})
	}
}

func isContext(s *source, e ast.Expr) bool {
	pkg, name := s.called(e)
	return pkg == "context" && name == "Context"
}

func isTesting(s *source, e ast.Expr) bool {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	pkg, _ := s.called(e)
	return pkg == "testing" || strings.HasSuffix(pkg, "/testscript")
}

func checkContextRoot(tr *tree, bad report) {
	for _, s := range tr.code {
		s.eachUse(func(sel *ast.SelectorExpr, pkg, name string) {
			switch {
			case pkg != "context":
			case name == "TODO":
				bad(s.path, tr.line(sel.Pos()), "context.TODO")
			case name == "Background" && !s.test && !s.main():
				bad(s.path, tr.line(sel.Pos()), "context.Background outside a main package: take ctx, or context.WithoutCancel(ctx)")
			}
		})
	}
}

// checkContextShelf bans values in contexts, and contexts in structs where no
// comment gives their life.
func checkContextShelf(tr *tree, bad report) {
	for _, s := range tr.code {
		s.eachUse(func(sel *ast.SelectorExpr, pkg, name string) {
			if pkg == "context" && name == "WithValue" {
				bad(s.path, tr.line(sel.Pos()), "context.WithValue")
			}
		})
		ast.Inspect(s.ast, func(n ast.Node) bool {
			st, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range st.Fields.List {
				if isContext(s, field.Type) && field.Doc == nil && field.Comment == nil {
					bad(s.path, tr.line(field.Pos()), "context.Context in a struct, and no comment says how long it lives")
				}
			}
			return true
		})
	}
}

// checkNoSleep bans sleeping in tests, but for the fake time of a synctest
// bubble, where it is how time passes.
func checkNoSleep(tr *tree, bad report) {
	for _, s := range tr.code {
		if !s.test {
			continue
		}
		var bubbles []ast.Node
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if pkg, _ := s.called(call.Fun); pkg == "testing/synctest" {
					bubbles = append(bubbles, call)
				}
			}
			return true
		})
		s.eachUse(func(sel *ast.SelectorExpr, pkg, name string) {
			in := func(b ast.Node) bool { return b.Pos() <= sel.Pos() && sel.Pos() < b.End() }
			if pkg == "time" && name == "Sleep" && !slices.ContainsFunc(bubbles, in) {
				bad(s.path, tr.line(sel.Pos()), "time.Sleep in a test")
			}
		})
	}
}
