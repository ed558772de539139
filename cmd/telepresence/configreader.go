package main

import (
	"go.yaml.in/yaml/v3"
)

// configReader turns YAML nodes into settings, held to the flag table.
type configReader struct {
	path string
	rows []flagRow
}

// section reads a mapping of options. special may take a key for itself.
func (r configReader) section(n *yaml.Node, special func(key, value *yaml.Node) (bool, error)) (map[string]setting, error) {
	settings, seen := map[string]setting{}, map[string]bool{}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return settings, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, at(r.path, n, "settings are wanted here, as in \"namespace: dev\"")
	}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if seen[key.Value] {
			return nil, at(r.path, key, "%s stands here twice", key.Value)
		}
		seen[key.Value] = true
		if done, err := special(key, value); err != nil {
			return nil, err
		} else if done {
			continue
		}
		s, err := r.setting(key, value)
		if err != nil {
			return nil, err
		}
		settings[key.Value] = s
	}
	return settings, nil
}

// contexts reads a mapping of contexts to their sections.
func (r configReader) contexts(n *yaml.Node) (map[string]map[string]setting, error) {
	if n.Kind != yaml.MappingNode {
		return nil, at(r.path, n, "contexts wants names of contexts, each with settings")
	}
	contexts := map[string]map[string]setting{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if _, twice := contexts[key.Value]; twice {
			return nil, at(r.path, key, "context %s stands here twice", key.Value)
		}
		section, err := r.section(n.Content[i+1], func(key, _ *yaml.Node) (bool, error) {
			if key.Value == "context" || key.Value == "contexts" {
				return true, at(r.path, key, "%s can't stand inside contexts", key.Value)
			}
			return false, nil
		})
		if err != nil {
			return nil, err
		}
		contexts[key.Value] = section
	}
	return contexts, nil
}

// setting reads one option's value, and has the option's own parser check it.
func (r configReader) setting(key, value *yaml.Node) (setting, error) {
	row, ok := findRow(r.rows, "--"+key.Value)
	if !ok || !row.config {
		return setting{}, r.unknown(key, ok)
	}
	items := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode && row.repeat {
		items = value.Content
	}
	s := setting{line: value.Line}
	var scratch settings
	v := row.bind(&scratch)
	for _, item := range items {
		if item.Kind != yaml.ScalarNode {
			return setting{}, at(r.path, item, "%s wants a single value", key.Value)
		}
		if err := v.Set(item.Value); err != nil {
			return setting{}, at(r.path, item, "%s: %v", key.Value, err)
		}
		s.values = append(s.values, item.Value)
	}
	return s, nil
}

// unknown is the fault of a key that is no setting.
func (r configReader) unknown(key *yaml.Node, option bool) error {
	if option {
		return at(r.path, key, "%s is an option for the command line only", key.Value)
	}
	names := []string{"contexts"}
	for _, row := range r.rows {
		if row.config {
			names = append(names, row.name)
		}
	}
	err := at(r.path, key, "there is no setting %q", key.Value)
	if near := nearest(key.Value, names); near != "" {
		err.hint = "the nearest is " + near
	}
	return err
}
