// Package modelconfig reads the files that say which models are served: TensorFlow Serving's model config file, its monitoring config
// file, and our own of how traffic is shared between versions.
//
// Contract: a file is read wholly or refused with FILE:LINE:COLUMN and what to do; nothing is guessed and no field is ignored
// without a warning.
// Sources: tensorflow_serving/config/model_server_config.proto and monitoring_config.proto,
// tensorflow_serving/sources/storage_path/file_system_storage_path_source.proto.
package modelconfig

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Config is what a server serves.
type Config struct {
	Models  []Model
	Traffic []Traffic // nil: as it is

	Warnings []string // what is in the file and has no effect, with its place
}

// Model is one entry of model_config_list.
type Model struct {
	Name     string
	BasePath string // absolute, or a URL
	Policy   Policy
	Labels   map[string]int64 // version_labels
}

// Policy says which versions of those that there are shall be served. The zero value is the highest one, as in TF-Serving.
type Policy struct {
	All      bool
	Specific []int64 // if not empty
	Latest   int     // so many of the highest; 0 is 1
}

// Remote says whether a base path is a URL.
func Remote(base string) bool { return strings.Contains(base, "://") }

// check is a rule over one field's node.
type check func(n *node) error

// source is one file being understood.
type source struct{ file string }

func (s source) fail(n *node, format string, arguments ...any) error {
	return fmt.Errorf("%s: %s", position(s.file, n.line, n.column), fmt.Sprintf(format, arguments...))
}

// visit gives each field to the rule of its name; repeated names the fields that may come more than once.
func (s source) visit(owner string, nodes []node, repeated string, rules map[string]check) error {
	seen := map[string]*node{}
	for i := range nodes {
		n := &nodes[i]
		rule, known := rules[n.name]
		if !known {
			return s.fail(n, "%s has no field %q; it has %s", owner, n.name, strings.Join(slices.Sorted(maps.Keys(rules)), ", "))
		}
		if before := seen[n.name]; before != nil && n.name != repeated {
			return s.fail(n, "%s is given twice; the first is at %d:%d", n.name, before.line, before.column)
		}
		seen[n.name] = n
		if err := rule(n); err != nil {
			return err
		}
	}
	return nil
}

func (s source) text(into *string) check {
	return func(n *node) error {
		if n.message || !n.quoted {
			return s.fail(n, `%s must be a string in quotes, as in %s: "..."`, n.name, n.name)
		}
		*into = n.text
		return nil
	}
}

func (s source) number(into *int64, low, high int64) check {
	return func(n *node) error {
		value, err := strconv.ParseInt(n.text, 0, 64)
		if n.message || n.quoted || err != nil {
			return s.fail(n, "%s must be a whole number", n.name)
		}
		if value < low || value > high {
			return s.fail(n, "%s is %d; it must be %d..%d", n.name, value, low, high)
		}
		*into = value
		return nil
	}
}

func (s source) boolean(into *bool) check {
	return func(n *node) error {
		if n.message || n.quoted || n.text != "true" && n.text != "false" {
			return s.fail(n, "%s must be true or false", n.name)
		}
		*into = n.text == "true"
		return nil
	}
}

// inside makes a rule of what to do with a message's fields.
func (s source) inside(then func(n *node) error) check {
	return func(n *node) error {
		if !n.message {
			return s.fail(n, "%s must be a message, as in %s { ... }", n.name, n.name)
		}
		return then(n)
	}
}

func (s source) refuse(why string) check {
	return func(n *node) error { return s.fail(n, "%s %s", n.name, why) }
}

const highest = 1<<63 - 1

// Parse reads a model config file. A relative base_path starts where the file lies.
func Parse(file, text string) (Config, error) {
	s, config := source{file}, Config{}
	nodes, err := parse(file, text)
	if err != nil {
		return config, err
	}
	found := false
	err = s.visit("the model config", nodes, "", map[string]check{
		"model_config_list": s.inside(func(list *node) error {
			found = true
			return s.visit("model_config_list", list.children, "config", map[string]check{
				"config": s.inside(func(n *node) error { return s.model(n, &config) }),
			})
		}),
		"custom_model_config": s.refuse("is not served: write a model_config_list"),
	})
	if err == nil && !found {
		err = fmt.Errorf("%s: there is no model_config_list { ... }", file)
	}
	return config, err
}

func (s source) model(n *node, config *Config) error {
	m, platform := Model{}, ""
	err := s.visit("config", n.children, "version_labels", map[string]check{
		"name":           s.text(&m.Name),
		"base_path":      s.text(&m.BasePath),
		"model_platform": s.text(&platform),
		"model_type": func(n *node) error {
			if n.text != "TENSORFLOW" {
				return s.fail(n, "model_type is %s; only TENSORFLOW is served", n.text)
			}
			return nil
		},
		"model_version_policy": s.inside(func(n *node) error { return s.policy(n, &m.Policy) }),
		"version_labels":       s.inside(func(n *node) error { return s.label(n, &m) }),
		"logging_config": s.inside(func(n *node) error {
			config.Warnings = append(config.Warnings, fmt.Sprintf("%s: logging_config has no effect: requests are not recorded here", position(s.file, n.line, n.column)))
			return nil
		}),
	})
	switch {
	case err != nil:
		return err
	case m.Name == "":
		return s.fail(n, "config has no name")
	case m.BasePath == "":
		return s.fail(n, "config %q has no base_path", m.Name)
	case platform != "" && platform != "tensorflow":
		return s.fail(n, "config %q has the model_platform %q; only \"tensorflow\" is served", m.Name, platform)
	case slices.ContainsFunc(config.Models, func(other Model) bool { return other.Name == m.Name }):
		return s.fail(n, "there is another config with the name %q; names must differ", m.Name)
	}
	if !Remote(m.BasePath) && !filepath.IsAbs(m.BasePath) {
		m.BasePath = filepath.Join(filepath.Dir(s.file), m.BasePath)
	}
	config.Models = append(config.Models, m)
	return nil
}

func (s source) policy(n *node, p *Policy) error {
	if len(n.children) > 1 {
		return s.fail(&n.children[1], "model_version_policy is one of latest, all and specific")
	}
	return s.visit("model_version_policy", n.children, "", map[string]check{
		"all": s.inside(func(n *node) error {
			p.All = true
			return s.visit("all", n.children, "", nil)
		}),
		"latest": s.inside(func(n *node) error {
			count := int64(1)
			err := s.visit("latest", n.children, "", map[string]check{"num_versions": s.number(&count, 1, 1<<20)})
			p.Latest = int(count)
			return err
		}),
		"specific": s.inside(func(n *node) error {
			err := s.visit("specific", n.children, "versions", map[string]check{"versions": func(n *node) error {
				var version int64
				err := s.number(&version, 0, highest)(n)
				p.Specific = append(p.Specific, version)
				return err
			}})
			if err == nil && len(p.Specific) == 0 {
				return s.fail(n, "specific names no versions")
			}
			return err
		}),
	})
}

// label reads an entry of map<string, int64> version_labels.
func (s source) label(n *node, m *Model) error {
	label, version := "", int64(-1)
	err := s.visit("version_labels", n.children, "", map[string]check{"key": s.text(&label), "value": s.number(&version, 0, highest)})
	switch {
	case err != nil:
		return err
	case label == "" || version < 0:
		return s.fail(n, `version_labels needs a key and a value, as in version_labels { key: "stable" value: 2 }`)
	}
	if _, twice := m.Labels[label]; twice {
		return s.fail(n, "version_labels has the key %q twice", label)
	}
	if m.Labels == nil {
		m.Labels = map[string]int64{}
	}
	m.Labels[label] = version
	return nil
}

// Monitoring is TF-Serving's monitoring config.
type Monitoring struct {
	Enabled bool
	Path    string // where metrics are, in Prometheus' text format
}

// MonitoringPath is TF-Serving's own.
const MonitoringPath = "/monitoring/prometheus/metrics"

// ParseMonitoring reads a monitoring config file.
func ParseMonitoring(file, text string) (Monitoring, error) {
	s, m := source{file}, Monitoring{Path: MonitoringPath}
	nodes, err := parse(file, text)
	if err != nil {
		return m, err
	}
	err = s.visit("the monitoring config", nodes, "", map[string]check{
		"prometheus_config": s.inside(func(n *node) error {
			return s.visit("prometheus_config", n.children, "", map[string]check{
				"enable": s.boolean(&m.Enabled),
				"path": func(n *node) error {
					err := s.text(&m.Path)(n)
					if err == nil && !strings.HasPrefix(m.Path, "/") {
						err = s.fail(n, "path is %q; it must begin with /", m.Path)
					}
					return err
				},
			})
		}),
	})
	return m, err
}
