package repo

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// module is this repository's module path.
const module = "github.com/telepresence/telepresence"

// tree is the repository, or a planted piece of one.
type tree struct {
	fset  *token.FileSet
	code  []*source
	texts map[string][]byte // every text file by its path, Go files included
	paths map[string]bool   // every file and folder
}

// source is one Go file.
type source struct {
	path, dir string
	test      bool
	text      []byte
	ast       *ast.File
}

// readTree reads what lies under root, without what .gitignore excludes.
func readTree(root string) (*tree, error) {
	ignored, err := ignoredPaths(root)
	if err != nil {
		return nil, err
	}
	texts, paths := map[string][]byte{}, map[string]bool{}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(p, root+string(filepath.Separator)))
		switch {
		case d.Name() == ".git" || slices.Contains(ignored, rel):
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			paths[rel] = true
			return nil
		}
		paths[rel] = true
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if bytes.IndexByte(text, 0) < 0 {
			texts[rel] = text
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	tr, err := parseTree(texts)
	if err != nil {
		return nil, err
	}
	tr.paths = paths
	return tr, nil
}

// ignoredPaths lists the anchored entries of .gitignore: "/bin/" is "bin".
func ignoredPaths(root string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		return nil, err
	}
	var paths []string
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "/"); ok {
			paths = append(paths, strings.TrimSuffix(rest, "/"))
		}
	}
	return paths, nil
}

// parseTree parses the Go files among texts. Go ignores folders called
// testdata, and so does it.
func parseTree(texts map[string][]byte) (*tree, error) {
	tr := &tree{fset: token.NewFileSet(), texts: texts, paths: map[string]bool{}}
	for p := range texts {
		tr.paths[p] = true
	}
	for _, p := range slices.Sorted(maps.Keys(texts)) {
		if path.Ext(p) != ".go" || slices.Contains(strings.Split(p, "/"), "testdata") {
			continue
		}
		f, err := parser.ParseFile(tr.fset, p, texts[p], parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parsing %s: %w", p, err)
		}
		tr.code = append(tr.code, &source{p, path.Dir(p), strings.HasSuffix(p, "_test.go"), texts[p], f})
	}
	return tr, nil
}

// line is the line of a position.
func (tr *tree) line(p token.Pos) int { return tr.fset.Position(p).Line }

// lines is how many lines a node spans.
func (tr *tree) lines(n ast.Node) int { return tr.line(n.End()) - tr.line(n.Pos()) + 1 }

// main says whether the file belongs to a program.
func (s *source) main() bool { return s.ast.Name.Name == "main" }

// importPaths are the paths the file imports, each with its position.
func (s *source) importPaths() map[string]token.Pos {
	paths := map[string]token.Pos{}
	for _, spec := range s.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			paths[p] = spec.Pos()
		}
	}
	return paths
}

// called resolves pkg.Name in the file: the import path and the name, or two
// empty strings where the expression is no such thing.
func (s *source) called(e ast.Expr) (pkg, name string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	for _, spec := range s.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		local := path.Base(p)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == id.Name {
			return p, sel.Sel.Name
		}
	}
	return "", ""
}

// eachUse calls f for every pkg.Name of a file.
func (s *source) eachUse(f func(sel *ast.SelectorExpr, pkg, name string)) {
	ast.Inspect(s.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if pkg, name := s.called(sel); pkg != "" {
				f(sel, pkg, name)
			}
		}
		return true
	})
}
