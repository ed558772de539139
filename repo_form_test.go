package repo

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The limits of rule 6.
const (
	maxFileLines = 400
	maxFuncLines = 60
)

func checkGofmt(tr *tree, bad report) {
	for _, s := range tr.code {
		want, err := format.Source(s.text)
		if err != nil {
			bad(s.path, 1, "gofmt: %v", err)
		} else if !bytes.Equal(want, s.text) {
			bad(s.path, 1, "is not gofmted")
		}
	}
}

// checkPackageComment wants one well-formed comment per package: "Package x"
// or, for a program, "Command x", and a verb in the third person.
func checkPackageComment(tr *tree, bad report) {
	type pkg struct{ dir, name string }
	first, told := map[pkg]*source{}, map[pkg]bool{}
	for _, s := range tr.code {
		p := pkg{s.dir, strings.TrimSuffix(s.ast.Name.Name, "_test")}
		if first[p] == nil {
			first[p] = s
		}
		if s.ast.Doc == nil {
			continue
		}
		told[p] = true
		intro := "Package " + p.name
		if p.name == "main" {
			intro = "Command " + path.Base(s.dir)
		}
		if !regexp.MustCompile(`^` + regexp.QuoteMeta(intro) + `\s[a-z]+s\b`).MatchString(s.ast.Doc.Text()) {
			bad(s.path, tr.line(s.ast.Doc.Pos()), "package comment does not begin with %q and a verb", intro)
		}
	}
	for p, s := range first {
		if !told[p] {
			bad(s.path, 1, "package %s has no comment that says what it is for", p.name)
		}
	}
}

// checkPackageName bans the names of drawers.
func checkPackageName(tr *tree, bad report) {
	drawers := []string{
		"util", "utils", "common", "helper", "helpers", "shared", "types",
		"core", "manager", "misc", "base", "lib", "internal_utils",
	}
	for _, s := range tr.code {
		for _, name := range []string{s.ast.Name.Name, path.Base(s.dir)} {
			if slices.Contains(drawers, name) {
				bad(s.path, tr.line(s.ast.Name.Pos()), "package name %q says nothing about what is in it", name)
				break
			}
		}
	}
}

func checkExportedDoc(tr *tree, bad report) {
	for _, s := range tr.code {
		if s.test {
			continue
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					bad(s.path, tr.line(d.Pos()), "exported %s has no comment", d.Name.Name)
				}
			case *ast.GenDecl:
				for _, id := range undocumented(d) {
					bad(s.path, tr.line(id.Pos()), "exported %s has no comment", id.Name)
				}
			}
		}
	}
}

// exportedReceiver says whether d is a function, or a method of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// undocumented lists the exported names of a declaration that no comment of
// their own, of their line or of their group explains.
func undocumented(d *ast.GenDecl) []*ast.Ident {
	var names []*ast.Ident
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Doc == nil && spec.Comment == nil && (d.Doc == nil || d.Lparen.IsValid()) {
				names = append(names, spec.Name)
			}
		case *ast.ValueSpec:
			if spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
				names = append(names, spec.Names...)
			}
		}
	}
	return slices.DeleteFunc(names, func(id *ast.Ident) bool { return !id.IsExported() })
}

func checkNoGetter(tr *tree, bad report) {
	getter := regexp.MustCompile(`^Get[A-Z]`)
	for _, s := range tr.code {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && getter.MatchString(f.Name.Name) {
				bad(s.path, tr.line(f.Pos()), "%s: leave out the Get", f.Name.Name)
			}
		}
	}
}

func checkFileLength(tr *tree, bad report) {
	for _, s := range tr.code {
		if n := bytes.Count(s.text, []byte("\n")); n > maxFileLines && !ast.IsGenerated(s.ast) {
			bad(s.path, n, "file has %d lines, more than %d: it holds two ideas", n, maxFileLines)
		}
	}
}

// checkFuncLength counts the lines of each function; the table of a table test
// does not count.
func checkFuncLength(tr *tree, bad report) {
	for _, s := range tr.code {
		if ast.IsGenerated(s.ast) {
			continue
		}
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := tr.lines(f)
			if s.test {
				n -= tableLines(tr, f)
			}
			if n > maxFuncLines {
				bad(s.path, tr.line(f.Pos()), "func %s has %d lines, more than %d", f.Name.Name, n, maxFuncLines)
			}
		}
	}
}

// tableLines is how many lines of a function lie inside literals of values.
func tableLines(tr *tree, f *ast.FuncDecl) int {
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		lit, ok := node.(*ast.CompositeLit)
		if ok {
			n += tr.lines(lit) - 1
		}
		return !ok
	})
	return n
}

func checkNoInit(tr *tree, bad report) {
	for _, s := range tr.code {
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && f.Name.Name == "init" && !silenced(tr, s, f.Pos(), "gochecknoinits") {
				bad(s.path, tr.line(f.Pos()), "func init")
			}
		}
	}
}

// silenced says whether a linter is silenced on the line of a position.
func silenced(tr *tree, s *source, p token.Pos, linter string) bool {
	for _, g := range s.ast.Comments {
		for _, c := range g.List {
			if tr.line(c.Pos()) == tr.line(p) && strings.HasPrefix(c.Text, "//nolint:"+linter) {
				return true
			}
		}
	}
	return false
}
