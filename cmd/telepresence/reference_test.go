package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// exitCodes is the block in exit.go, in words.
const exitCodes = `0    the process ended with 0; or Ctrl-C, SIGTERM or SIGHUP ended the session, and all was put back
N    the process ended with N; 128+N where signal N ended it
2    the command line, the configuration file or the environment is wrong; nothing was touched
255  telepresence itself could not do its part; a sentence on stderr says what to do
`

// TestReference holds docs/reference and docs/man to the flag table; -update
// writes them.
func TestReference(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "docs")
	pages := referencePages()
	for _, path := range slices.Sorted(maps.Keys(pages)) {
		file := filepath.Join(root, path)
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(pages[path]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil || string(text) != pages[path] {
			t.Errorf("docs/%s is not what the flag table says (%v): run make docs", path, err)
		}
	}
	for _, folder := range []string{"reference", "man"} {
		files, err := filepath.Glob(filepath.Join(root, folder, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if path := folder + "/" + filepath.Base(f); pages[path] == "" {
				t.Errorf("docs/%s belongs to no command: remove it", path)
			}
		}
	}
}

// TestManPages has groff read the pages, and complain of nothing.
func TestManPages(t *testing.T) {
	t.Parallel()
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed")
	}
	for path, text := range referencePages() {
		if !strings.HasPrefix(path, "man/") {
			continue
		}
		cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("docs/%s: %v: %s", path, err, out)
		}
	}
}

// referencePages are all generated pages, by their paths under docs.
func referencePages() map[string]string {
	p := newProgram("telepresence", streams{os.Stdin, os.Stdout, os.Stderr}, nil)
	root := p.newRoot()
	pages := map[string]string{"reference/configuration.md": settingsPage(p.rows)}
	addPages(pages, p.rows, root)
	return pages
}

// addPages adds the pages of a command and of those below it.
func addPages(pages map[string]string, rows []flagRow, c *cobra.Command) {
	if c.Hidden {
		return
	}
	pages["reference/"+pageName(c)+".md"] = markdownPage(rows, c)
	pages["man/"+pageName(c)+".1"] = manPage(rows, c)
	for _, sub := range c.Commands() {
		addPages(pages, rows, sub)
	}
}

// pageName is what a command's pages are called.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

const generated = "<!-- Made from the flag table in cmd/telepresence/flags.go by \"make docs\". -->\n\n"

func markdownPage(rows []flagRow, c *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s# %s\n\n%s\n\n```\n%s\n```\n", generated, c.CommandPath(), longOf(c), strings.Join(usageForms(c), "\n"))
	if c.Example != "" {
		fmt.Fprintf(&b, "\n## Examples\n\n```console\n%s\n```\n", strings.ReplaceAll("\n"+c.Example, "\n  ", "\n$ ")[1:])
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\n## Sub-commands\n\n| sub-command | what it does |\n|---|---|\n")
		for _, sub := range c.Commands() {
			if !sub.Hidden {
				fmt.Fprintf(&b, "| [%s](%s.md) | %s |\n", sub.Name(), pageName(sub), sub.Short)
			}
		}
	}
	for _, g := range groupedRows(rows, commandName(c)) {
		fmt.Fprintf(&b, "\n## %s\n\n| option | what it does | default |\n|---|---|---|\n", g.title)
		for _, r := range g.rows {
			usage := r.usage
			if r.repeat {
				usage += "; may be repeated"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", cell(r.form()), cell(usage), cell(r.def))
		}
	}
	fmt.Fprintf(&b, "\n## Exit codes\n\n```\n%s```\n", exitCodes)
	return b.String()
}

// cell is text for a table's cell.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

func longOf(c *cobra.Command) string {
	if c.Long != "" {
		return c.Long
	}
	return c.Short
}

// settingsPage lists what may stand in the configuration file.
func settingsPage(rows []flagRow) string {
	var b strings.Builder
	b.WriteString(generated + "# Settings\n\nWhat the configuration file and the environment may say; " +
		"[configuration](../configuration.md) says how.\n\n| setting | variable | value | what it does |\n|---|---|---|---|\n")
	for _, r := range rows {
		if !r.config {
			continue
		}
		variable, arg, usage := "`"+r.variable()+"`", r.arg, r.usage
		if r.noEnviron {
			variable = "none: a session sets `" + r.variable() + "`"
		}
		if arg == "" {
			arg = "true|false"
		}
		if r.repeat {
			usage += "; a list, in the variable separated by commas"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", r.name, variable, cell(arg), cell(usage))
	}
	return b.String()
}

// manPage is a page of section 1, in the man macros.
func manPage(rows []flagRow, c *cobra.Command) string {
	var b strings.Builder
	name := pageName(c)
	fmt.Fprintf(&b, ".\\\" Made from the flag table by \"make docs\".\n.TH %s 1\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n", strings.ToUpper(roff(name)), roff(name), roff(c.Short))
	for i, form := range usageForms(c) {
		if i > 0 {
			b.WriteString(".br\n")
		}
		b.WriteString(roff(form) + "\n")
	}
	b.WriteString(".SH DESCRIPTION\n" + roff(longOf(c)) + "\n")
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n.nf\n" + roff(c.Example) + "\n.fi\n")
	}
	if c.HasAvailableSubCommands() {
		b.WriteString(".SH SUB-COMMANDS\n")
		for _, sub := range c.Commands() {
			if !sub.Hidden {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(pageName(sub)), roff(sub.Short))
			}
		}
	}
	b.WriteString(".SH OPTIONS\n")
	for _, g := range groupedRows(rows, commandName(c)) {
		b.WriteString(".SS " + roff(g.title) + "\n")
		for _, r := range g.rows {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(r.form()), roff(r.sentence()))
		}
	}
	b.WriteString(".SH EXIT STATUS\n.nf\n" + roff(exitCodes) + ".fi\n")
	return b.String()
}

// roff escapes text for a man page.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
