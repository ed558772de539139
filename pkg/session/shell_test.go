package session

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPrompt starts interactive shells with the variables, and reads what they
// prompt with.
func TestPrompt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{[]string{"sh", "-i"}, "@staging|$ "},
		{[]string{"bash", "--norc", "-i"}, "@staging|mine> "}, // in front of the prompt that the user has
	} {
		path, err := exec.LookPath(tt.words[0])
		if err != nil {
			t.Logf("skipped: %v", err)
			continue
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, tt.words[1:]...)
		cmd.Env = []string{"PS1=mine> ", "HOME=" + t.TempDir()}
		for name, value := range prompt(path, "staging") {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		cmd.Stdin = strings.NewReader("exit 3\n")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		_ = cmd.Run() // exit code 3
		if !strings.Contains(stderr.String(), tt.want) || cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("%s: %q, want %q; %v", path, &stderr, tt.want, cmd.ProcessState)
		}
	}
}
