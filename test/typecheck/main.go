// Command typecheck finds what a compiler for another system would refuse, in seconds
// instead of minutes: of this module's packages everything, of all others only
// what they declare.
//
//	go run ./test/typecheck darwin/arm64 ./cmd/telepresence
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// listed is a package as go list has it.
type listed struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string
	Module          *struct{ Main bool }
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: typecheck SYSTEM/ARCHITECTURE PACKAGE…")
		os.Exit(2)
	}
	if err := check(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// check checks packages and all that they import, for a system.
func check(system string, patterns []string) error {
	goos, goarch, _ := strings.Cut(system, "/")
	sizes := types.SizesFor("gc", goarch)
	if sizes == nil {
		return fmt.Errorf("%s is no SYSTEM/ARCHITECTURE", system)
	}
	list := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,Module"}, patterns...)...)
	list.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	list.Stderr = os.Stderr
	out, err := list.StdoutPipe()
	if err == nil {
		err = list.Start()
	}
	if err != nil {
		return fmt.Errorf("listing packages: %w", err)
	}
	known := known{"unsafe": types.Unsafe}
	var faults []error
	for packages := json.NewDecoder(out); ; { // each comes after those it imports
		var p listed
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("reading the list of packages: %w", err)
		}
		if p.ImportPath != "unsafe" {
			faults = append(faults, known.add(p, sizes)...)
		}
	}
	if err := list.Wait(); err != nil {
		return fmt.Errorf("listing packages: %w", err)
	}
	return errors.Join(faults...)
}

// known are the packages that have been checked, by path.
type known map[string]*types.Package

// add checks a package, and returns the faults of one of ours.
func (k known) add(p listed, sizes types.Sizes) (faults []error) {
	ours := p.Module != nil && p.Module.Main
	fault := func(err error) {
		if ours {
			faults = append(faults, err)
		}
	}
	var files []*ast.File
	positions := token.NewFileSet()
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(positions, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			fault(err)
			continue
		}
		files = append(files, f)
	}
	c := types.Config{Importer: importer{k, p.ImportMap}, IgnoreFuncBodies: !ours, FakeImportC: true, Sizes: sizes, Error: fault}
	k[p.ImportPath], _ = c.Check(p.ImportPath, positions, files, nil) // its first error is among the faults
	return faults
}

// importer finds what a package imports, some of it under another name, as the
// standard library does with what it has copied.
type importer struct {
	known
	renamed map[string]string
}

// Import implements types.Importer.
func (i importer) Import(path string) (*types.Package, error) {
	if to := i.renamed[path]; to != "" {
		path = to
	}
	if p := i.known[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s is imported and wasn't listed", path)
}
