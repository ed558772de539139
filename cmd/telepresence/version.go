package main

import (
	"encoding/json"
	"runtime"

	"github.com/spf13/cobra"
)

// versionFacts is what the version sub-command tells.
type versionFacts struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	System  string `json:"system"`
}

func (p *program) newVersionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		RunE: func(*cobra.Command, []string) error {
			return p.runVersion(versionFacts{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
		},
	}
}

func (p *program) runVersion(v versionFacts) error {
	if p.settings.output == "json" {
		return p.resultJSON(v)
	}
	return p.ui.result("telepresence " + v.Version + " (" + v.Go + ", " + v.System + ")\n")
}

// resultJSON writes a sub-command's result as JSON.
func (p *program) resultJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return p.ui.result(string(text) + "\n")
}
