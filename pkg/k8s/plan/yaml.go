package plan

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/telepresence/telepresence/pkg/k8s/undo"
)

// printed is a plan as --dry-run shows it.
type printed struct {
	Session        SessionID       `json:"session"`
	Workload       string          `json:"workload,omitempty"`
	Container      string          `json:"container"`
	Strategy       Strategy        `json:"strategy"`
	OriginalsFirst bool            `json:"originalsFirst"`
	Reason         string          `json:"reason"`
	Ports          []printedPort   `json:"ports"`
	Warnings       []string        `json:"warnings,omitempty"`
	Pod            *corev1.Pod     `json:"pod,omitempty"`
	Service        *corev1.Service `json:"service,omitempty"`
	Undo           undo.Record     `json:"undo"`
}

type printedPort struct {
	Pod   Port `json:"pod"`
	Local Port `json:"local"`
}

// YAML is the plan for people to read. There are no keys in it.
func (p *Plan) YAML() ([]byte, error) {
	out := printed{
		Session: p.Session, Container: p.Container, Strategy: p.Strategy, OriginalsFirst: p.OriginalsFirst,
		Reason: p.Reason, Ports: []printedPort{}, Warnings: p.Warnings, Service: p.Service, Undo: p.Record,
	}
	if p.Workload != nil {
		out.Workload = p.Target.String()
	}
	if p.Operation != Standing {
		out.Pod = p.Pod
	}
	for _, e := range p.Ports {
		out.Ports = append(out.Ports, printedPort{Pod: e.Remote, Local: e.Local})
	}
	text, err := yaml.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("writing the plan of %s: %w", p.Target, err)
	}
	return text, nil
}
