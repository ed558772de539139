package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/telepresence/telepresence/pkg/k8s"
)

// completionPatience is how long a shell waits for a cluster's words.
const completionPatience = 3 * time.Second

func (p *program) newCompletionCmd() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a script that completes the command line, for bash, zsh, fish or powershell",
		Example: `  source <(telepresence completion bash)   # in .bashrc
  source <(telepresence completion zsh)    # in .zshrc, after compinit
  telepresence completion fish | source    # in config.fish
  telepresence completion powershell | Out-String | Invoke-Expression`,
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

// bashPackageWords is where cobra's script needs the package bash-completion, and
// bashWords what it needs it for: the words before the cursor, which bash has cut
// at "=" and ":" too. Many machines don't have the package, and Tab would do
// nothing there but complain.
const (
	bashPackageWords = `    _get_comp_words_by_ref "$@" cur prev words cword
`
	bashWords = `    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref "$@" cur prev words cword
        return
    fi
    local line=${COMP_LINE:0:COMP_POINT}
    read -ra words <<<"$line"
    if [[ $line == *[[:space:]] ]]; then
        words+=("")
    fi
    cword=$((${#words[@]} - 1))
    cur=${words[cword]}
    prev=${words[cword - 1]}
`
)

// writeCompletion writes the script for one of the shells.
func writeCompletion(root *cobra.Command, shell string, b *strings.Builder) error {
	switch shell {
	case "bash":
		var made strings.Builder
		err := root.GenBashCompletionV2(&made, true)
		b.WriteString(strings.Replace(made.String(), bashPackageWords, bashWords, 1))
		return err
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
	if r.arg == "" {
		return
	}
	complete := func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return p.proposals(c, r.complete, begun)
	}
	if err := c.RegisterFlagCompletionFunc(r.name, complete); err != nil {
		p.exitWith(err)
	}
}

// proposals are the words for one kind of argument. What the cluster can't tell
// is not proposed: a shell's completion has no place for errors.
func (p *program) proposals(c *cobra.Command, kind completionKind, begun string) ([]string, cobra.ShellCompDirective) {
	const noFiles = cobra.ShellCompDirectiveNoFileComp
	switch kind {
	case completeFile:
		return nil, cobra.ShellCompDirectiveDefault
	case completeFolder:
		return nil, cobra.ShellCompDirectiveFilterDirs
	case completeBool:
		return []string{"true", "false"}, cobra.ShellCompDirectiveDefault
	case completeMethod:
		return []string{"inject-tcp", "vpn-tcp", "container"}, noFiles
	case completeFormat:
		return []string{"text", "json"}, noFiles
	case completeContext:
		return known(k8s.Contexts()), noFiles
	case completeNamespace:
		return p.asked(c, func(ctx context.Context, c cluster) ([]string, error) { return c.Namespaces(ctx) }), noFiles
	case completeTarget:
		words := p.asked(c, func(ctx context.Context, c cluster) ([]string, error) { return c.Targets(ctx, begun) })
		return words, noFiles | cobra.ShellCompDirectiveNoSpace // a colon and a container may follow
	case completeNothing:
	}
	return nil, noFiles
}

// asked is what the cluster that the line names so far answers, within the time
// that a user at a prompt has.
func (p *program) asked(cmd *cobra.Command, ask func(context.Context, cluster) ([]string, error)) []string {
	if err := p.configure(cmd); err != nil {
		return nil
	}
	c, err := p.connect(p.clusterConfig())
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	return known(ask(ctx, c))
}

// known is words, or none if there was an error.
func known(words []string, err error) []string {
	if err != nil {
		return nil
	}
	return words
}
