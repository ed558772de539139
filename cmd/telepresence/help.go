package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// helpText is what --help prints for a command.
func helpText(rows []flagRow, c *cobra.Command) string {
	var b strings.Builder
	long := c.Long
	if long == "" {
		long = c.Short
	}
	b.WriteString(long + "\n\nUsage:\n")
	for _, form := range usageForms(c) {
		b.WriteString("  " + form + "\n")
	}
	if c.Example != "" {
		b.WriteString("\nExamples:\n" + strings.ReplaceAll(c.Example, "  telepresence ", "  "+c.Root().DisplayName()+" ") + "\n")
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\nSub-commands:\n")
		for _, sub := range c.Commands() {
			if !sub.Hidden {
				fmt.Fprintf(&b, "  %-12s %s\n", sub.Name(), sub.Short)
			}
		}
	}
	for _, g := range groupedRows(rows, commandName(c)) {
		b.WriteString("\n" + g.title + ":\n")
		for _, r := range g.rows {
			b.WriteString("  " + r.form() + "\n" + wrap(r.sentence(), "        ", 80))
		}
	}
	return b.String()
}

// usageForms are the ways to call a command.
func usageForms(c *cobra.Command) []string {
	if !c.HasParent() {
		return []string{
			c.DisplayName() + " [OPTION]... [--run COMMAND ARGS... | --run-shell | --docker-run ARGS...]",
			c.DisplayName() + " SUB-COMMAND [OPTION]...",
		}
	}
	form := c.CommandPath() + strings.TrimPrefix(c.Use, c.Name())
	if c.HasSubCommands() {
		form += " SUB-COMMAND"
	}
	return []string{form + " [OPTION]..."}
}

// commandName is a command's name in the flag table: empty for the flag form,
// joined by dashes below a sub-command.
func commandName(c *cobra.Command) string {
	_, path, _ := strings.Cut(c.CommandPath(), "telepresence ")
	return strings.ReplaceAll(path, " ", "-")
}

// rowGroup is the options under one heading.
type rowGroup struct {
	title string
	rows  []flagRow
}

// groupedRows are the options of a command by heading, in the table's order.
func groupedRows(rows []flagRow, command string) []rowGroup {
	var groups []rowGroup
	for _, r := range rows {
		if !r.taken(command) {
			continue
		}
		if n := len(groups); n == 0 || groups[n-1].title != r.group {
			groups = append(groups, rowGroup{title: r.group})
		}
		last := &groups[len(groups)-1]
		last.rows = append(last.rows, r)
	}
	return groups
}

// form is an option as it is typed: "-s, --swap-deployment NAME[:CONTAINER]".
func (r flagRow) form() string {
	form := "--" + r.name
	if r.short != "" {
		form = "-" + r.short + ", " + form
	}
	if r.arg != "" {
		form += " " + r.arg
	}
	return form
}

// sentence is all that help says about an option.
func (r flagRow) sentence() string {
	var more []string
	if r.repeat {
		more = append(more, "may be repeated")
	}
	if r.def != "" {
		more = append(more, "default: "+r.def)
	}
	if len(more) == 0 {
		return r.usage
	}
	return r.usage + " (" + strings.Join(more, "; ") + ")"
}

// wrap breaks text into indented lines of at most width columns.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column == 0:
			b.WriteString(indent + word)
			column = len(indent) + len(word)
		case column+1+len(word) > width:
			b.WriteString("\n" + indent + word)
			column = len(indent) + len(word)
		default:
			b.WriteString(" " + word)
			column += 1 + len(word)
		}
	}
	return b.String() + "\n"
}
