package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func (p *program) newCompletionCmd() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:       "completion SHELL",
		Short:     "Print a script that completes the command line, for bash, zsh, fish or powershell",
		Example:   "  source <(telepresence completion bash)",
		ValidArgs: shells,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("completion wants one of %s", strings.Join(shells, ", "))
			}
			if err := oneOf(args[0], shells...); err != nil {
				return usagef("completion: %v", err)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			var b strings.Builder
			if err := writeCompletion(c.Root(), args[0], &b); err != nil {
				return err
			}
			return p.ui.result(b.String())
		},
	}
}

// writeCompletion writes the script for one of the shells.
func writeCompletion(root *cobra.Command, shell string, b *strings.Builder) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(b, true)
	case "zsh":
		return root.GenZshCompletion(b)
	case "fish":
		return root.GenFishCompletion(b, true)
	default:
		return root.GenPowerShellCompletionWithDesc(b)
	}
}

// completionArgs are the arguments of a request for completions, without what
// --run and --docker-run swallow: there a shell completes files, as it does
// for the option itself.
func completionArgs(rows []flagRow, args []string) []string {
	if len(args) < 2 {
		return args
	}
	typed, last := args[1:len(args)-1], args[len(args)-1]
	l, err := splitLine(rows, typed)
	if err != nil || l.swallow == "" {
		if err != nil && len(typed) > 0 {
			if row, ok := findRow(rows, typed[len(typed)-1]); ok && row.swallow {
				return []string{args[0], "--" + row.name, last}
			}
		}
		return args
	}
	return []string{args[0], "--" + l.swallow, last}
}

// completeFlag registers what a shell proposes for an option's argument.
func (p *program) completeFlag(c *cobra.Command, r flagRow) {
	words, directive := []string(nil), cobra.ShellCompDirectiveNoFileComp
	switch r.complete {
	case completeFile:
		directive = cobra.ShellCompDirectiveDefault
	case completeFolder:
		directive = cobra.ShellCompDirectiveFilterDirs
	case completeMethod:
		words = []string{"inject-tcp", "vpn-tcp", "container"}
	case completeBool:
		words, directive = []string{"true", "false"}, cobra.ShellCompDirectiveDefault
	case completeFormat:
		words = []string{"text", "json"}
	}
	if r.arg == "" {
		return
	}
	complete := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, directive
	}
	if err := c.RegisterFlagCompletionFunc(r.name, complete); err != nil {
		p.exitWith(err)
	}
}
