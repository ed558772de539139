package main

import (
	"cmp"
	"encoding/json"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/telepresence/telepresence/images"
)

// versionFacts is what the version sub-command tells.
type versionFacts struct {
	Version    string `json:"version"`
	AgentImage string `json:"agentImage"`      // what a session would start
	Agent      string `json:"agent,omitempty"` // the version of the one in this process's session
	Go         string `json:"go"`
	System     string `json:"system"`
}

func (p *program) newVersionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program, and the image of the agent that it starts; in a session, its agent's version",
		RunE: func(*cobra.Command, []string) error {
			return p.runVersion(versionFacts{
				Version: version, AgentImage: p.agentImage(), Agent: p.variable("TELEPRESENCE_AGENT_VERSION"),
				Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH,
			})
		},
	}
}

func (p *program) runVersion(v versionFacts) error {
	if p.settings.output == "json" {
		return p.resultJSON(v)
	}
	text := "telepresence " + v.Version + " (" + v.Go + ", " + v.System + ")\nagent image " + v.AgentImage + "\n"
	if v.Agent != "" {
		text += "agent of this session " + v.Agent + "\n"
	}
	return p.ui.result(text)
}

// agentImage is the reference of the agent's image: this version's, in the
// release's registry, unless the environment says otherwise.
func (p *program) agentImage() string {
	return images.AgentRef(p.variable("TELEPRESENCE_REGISTRY"), cmp.Or(p.variable("TELEPRESENCE_VERSION"), version))
}

// resultJSON writes a sub-command's result as JSON.
func (p *program) resultJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return p.ui.result(string(text) + "\n")
}
