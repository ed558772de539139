package plan

import (
	"bytes"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// YAML is the plan for people to read: what is decided first, the objects after
// it. There are no keys in it.
func (p *Plan) YAML() ([]byte, error) {
	type entry struct {
		key   string
		value any
	}
	type port struct {
		Pod   Port `json:"pod"`
		Local Port `json:"local"`
	}
	ports := []port{}
	for _, e := range p.Ports {
		ports = append(ports, port{e.Remote, e.Local})
	}
	entries := []entry{
		{"session", p.Session}, {"operation", p.Operation.String()}, {"workload", p.Target.String()}, {"container", p.Container},
		{"strategy", p.Strategy}, {"originalsFirst", p.OriginalsFirst}, {"reason", p.Reason},
		{"ports", ports}, {"agentPort", p.AgentPort},
	}
	if len(p.Warnings) > 0 {
		entries = append(entries, entry{"warnings", p.Warnings})
	}
	if p.Operation == Standing {
		entries = append(entries, entry{"proxyPod", p.Pod.Name})
	} else {
		entries = append(entries, entry{"pod", brief(p.Pod)})
	}
	if p.Service != nil {
		entries = append(entries, entry{"service", brief(p.Service)})
	}
	entries = append(entries, entry{"undo", p.Record})
	var b bytes.Buffer
	for _, e := range entries {
		if e.key == "workload" && p.Operation == New {
			continue
		}
		text, err := yaml.Marshal(map[string]any{e.key: e.value})
		if err != nil {
			return nil, fmt.Errorf("writing the plan of %s: %w", p.Target, err)
		}
		b.Write(text)
	}
	return b.Bytes(), nil
}

// brief is an object without what says nothing: no status, no empty resources.
func brief[T *corev1.Pod | *corev1.Service](object T) any {
	text, err := json.Marshal(object)
	if err != nil {
		return object
	}
	var fields map[string]any
	if json.Unmarshal(text, &fields) != nil {
		return object
	}
	delete(fields, "status")
	if spec, ok := fields["spec"].(map[string]any); ok {
		for _, key := range []string{"containers", "initContainers"} {
			list, _ := spec[key].([]any)
			for _, c := range list {
				if c, ok := c.(map[string]any); ok && len(asMap(c["resources"])) == 0 {
					delete(c, "resources")
				}
			}
		}
	}
	return fields
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
