package session

import (
	"os"
	"path/filepath"
)

// command is what to run, and the variables that go with it: the user's words,
// or an interactive shell whose prompt names the context.
func (s *session) command() (words []string, variables map[string]string) {
	if len(s.o.Command) > 0 || len(s.o.Docker) > 0 {
		return s.o.Command, nil
	}
	shell := os.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	return []string{shell}, prompt(shell, s.cluster.Context())
}

// prompt are the variables that put the context's name in front of a shell's
// prompt. bash sets its prompt from the user's files, and is told to change it
// before the first is shown; the plain shells take theirs from the environment.
func prompt(shell, context string) map[string]string {
	if filepath.Base(shell) == "bash" {
		return map[string]string{
			"TELEPRESENCE_CONTEXT": context,
			"PROMPT_COMMAND":       `PS1="@${TELEPRESENCE_CONTEXT}|${PS1}"; unset PROMPT_COMMAND`,
		}
	}
	return map[string]string{"TELEPRESENCE_CONTEXT": context, "PS1": "@" + context + "|$ "}
}
