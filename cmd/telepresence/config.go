package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// fileConfig is the configuration file: defaults for options, and for some
// contexts others.
type fileConfig struct {
	path     string
	settings map[string]setting
	contexts map[string]map[string]setting
}

// setting is what the file says for one option.
type setting struct {
	values []string
	line   int
}

// configure completes what the command line left open: first the environment,
// then the file's section for the context, then the file.
func (p *program) configure(c *cobra.Command) error {
	if c.HasParent() && p.line.swallow != "" {
		return usagef("--%s does not go with the sub-command %s", p.line.swallow, c.Name())
	}
	if p.settings.help || p.settings.version || c.Name() == "completion" || c.Name() == "version" {
		return nil // none of these looks at a cluster: a broken file must not be in their way
	}
	file, err := readConfig(configPath(p.variable), p.variable("TELEPRESENCE_CONFIG") != "", p.rows)
	if err != nil {
		return err
	}
	if len(file.contexts) == 0 {
		return p.completeAll(c, file.settings)
	}
	if err := p.complete(c, file.settings, "context"); err != nil {
		return err
	}
	name := p.settings.Context
	if name == "" {
		name = p.currentContext()
	}
	return p.completeAll(c, file.contexts[name], file.settings)
}

// completeAll completes every option from the first of sections that has it.
func (p *program) completeAll(c *cobra.Command, sections ...map[string]setting) error {
	all := map[string]setting{}
	for _, section := range sections {
		for name, s := range section {
			if _, ok := all[name]; !ok {
				all[name] = s
			}
		}
	}
	for _, r := range p.rows {
		if err := p.complete(c, all, r.name); err != nil {
			return err
		}
	}
	return nil
}

// complete completes one option, unless the command line has it or the command
// does not take it.
func (p *program) complete(c *cobra.Command, section map[string]setting, name string) error {
	row, _ := findRow(p.rows, "--"+name)
	if f := c.Flags().Lookup(name); !row.config || f == nil || f.Changed {
		return nil
	}
	where, values := name, section[name].values
	if text := p.variable(row.variable()); text != "" && !row.noEnviron {
		where, values = row.variable(), []string{text}
		if row.repeat {
			values = strings.Split(text, ",")
		}
	}
	v := row.bind(&p.settings)
	if len(values) > 0 {
		v.reset()
	}
	for _, text := range values {
		if err := v.Set(text); err != nil {
			return usagef("%s: %v", where, err)
		}
	}
	return nil
}

// variable is the environment variable that stands for an option.
func (r flagRow) variable() string {
	return "TELEPRESENCE_" + strings.ToUpper(strings.ReplaceAll(r.name, "-", "_"))
}

// configPath is where the configuration file is.
func configPath(variable func(string) string) string {
	if path := variable("TELEPRESENCE_CONFIG"); path != "" {
		return path
	}
	folder := variable("XDG_CONFIG_HOME")
	if folder == "" {
		folder = filepath.Join(variable("HOME"), ".config")
	}
	return filepath.Join(folder, "telepresence", "config.yaml")
}

// readConfig reads a configuration file, strictly. A file that isn't there is
// an empty one, unless it must be there.
func readConfig(path string, must bool, rows []flagRow) (fileConfig, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return fileConfig{}, nil
	}
	if err != nil {
		return fileConfig{}, usagef("reading the configuration file: %v", err)
	}
	return parseConfig(path, text, rows)
}

// parseConfig parses a configuration file; path is for messages only.
func parseConfig(path string, text []byte, rows []flagRow) (fileConfig, error) {
	file := fileConfig{path: path, contexts: map[string]map[string]setting{}}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return file, usagef("%s: %s", path, strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", "; "))
	}
	if len(doc.Content) == 0 {
		return file, nil
	}
	reader := configReader{path, rows}
	var err error
	file.settings, err = reader.section(doc.Content[0], func(key, value *yaml.Node) (bool, error) {
		if key.Value != "contexts" {
			return false, nil
		}
		file.contexts, err = reader.contexts(value)
		return true, err
	})
	return file, err
}

// at makes a fault of a place in the file.
func at(path string, n *yaml.Node, format string, args ...any) *usageError {
	return &usageError{text: fmt.Sprintf("%s:%d: ", path, n.Line) + fmt.Sprintf(format, args...)}
}
