package modelconfig

import (
	"reflect"
	"strings"
	"testing"
)

func TestAConfigOfTFServingIsUnderstood(t *testing.T) {
	got, err := Parse("/etc/models.config", `
# as in the guide
model_config_list {
  config {
    name: 'digits'
    base_path: "/models/" 'digits'   # adjacent strings are one
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 42, versions: 43 } }
    version_labels { key: "stable" value: 43 }
    version_labels < key: 'canary'; value: 0x2a >
  }
  config: { name: "a\"b" base_path: "near" model_version_policy: { latest { num_versions: 2 } } }
  config { name: "c" base_path: "s3://bucket/c" model_version_policy { all: {} } model_type: TENSORFLOW }
  config { name: "d" base_path: "/d" model_version_policy { specific { versions: [1, 2] } } }
}`)
	want := Config{Models: []Model{
		{Name: "digits", BasePath: "/models/digits", Policy: Policy{Specific: []int64{42, 43}}, Labels: map[string]int64{"stable": 43, "canary": 42}},
		{Name: `a"b`, BasePath: "/etc/near", Policy: Policy{Latest: 2}},
		{Name: "c", BasePath: "s3://bucket/c", Policy: Policy{All: true}},
		{Name: "d", BasePath: "/d", Policy: Policy{Specific: []int64{1, 2}}},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestEveryMistakeHasItsPlaceAndItsText(t *testing.T) {
	wrap := func(inner string) string { return "model_config_list {\n config {\n" + inner + "\n }\n}" }
	for _, c := range []struct{ name, text, says string }{
		{"nothing", "", "m.config: there is no model_config_list { ... }"},
		{"unknown field", wrap(`name: "a" path: "/a"`), `m.config:3:11: config has no field "path"; it has base_path, logging_config, model_platform, model_type, model_version_policy, name, version_labels`},
		{"no name", wrap(`base_path: "/a"`), "m.config:2:2: config has no name"},
		{"no path", wrap(`name: "a"`), `m.config:2:2: config "a" has no base_path`},
		{"twice a field", wrap("name: 'a'\nname: 'b'"), "m.config:4:1: name is given twice; the first is at 3:1"},
		{"twice a model", "model_config_list { config { name: 'a' base_path: '/a' }\nconfig { name: 'a' base_path: '/b' } }", `m.config:2:1: there is another config with the name "a"; names must differ`},
		{"no quotes", wrap("name: a"), `m.config:3:1: name must be a string in quotes, as in name: "..."`},
		{"open string", wrap("name: 'a"), "m.config:3:9: the string of name, begun at 3:1, is not closed on its line"},
		{"open message", "model_config_list {\n config {", "m.config:2:10: config, opened at 2:2, is not closed with '}'"},
		{"wrong bracket", "model_config_list { config < }", "m.config:1:30: config, opened at 1:21, is not closed with '>'"},
		{"closed too often", wrap("name:'a' base_path:'/a'") + "}", "m.config:5:2: '}' closes nothing"},
		{"no colon", wrap("name 'a'"), `m.config:3:6: ':' or '{' is expected after name, not '\''`},
		{"no message", "model_config_list: 3", "m.config:1:1: model_config_list must be a message, as in model_config_list { ... }"},
		{"platform", wrap("name:'a' base_path:'/a' model_platform:'caffe'"), `m.config:2:2: config "a" has the model_platform "caffe"; only "tensorflow" is served`},
		{"two policies", wrap("name:'a' base_path:'/a' model_version_policy { all {} latest {} }"), "m.config:3:55: model_version_policy is one of latest, all and specific"},
		{"latest none", wrap("name:'a' base_path:'/a' model_version_policy { latest { num_versions: 0 } }"), "m.config:3:57: num_versions is 0; it must be 1..1048576"},
		{"specific none", wrap("name:'a' base_path:'/a' model_version_policy { specific { } }"), "m.config:3:48: specific names no versions"},
		{"a version of words", wrap("name:'a' base_path:'/a' model_version_policy { specific { versions: x } }"), "m.config:3:59: versions must be a whole number"},
		{"half a label", wrap("name:'a' base_path:'/a' version_labels { key: 'x' }"), `m.config:3:25: version_labels needs a key and a value, as in version_labels { key: "stable" value: 2 }`},
		{"label twice", wrap("name:'a' base_path:'/a' version_labels { key: 'x' value: 1 } version_labels { key: 'x' value: 2 }"), `m.config:3:62: version_labels has the key "x" twice`},
		{"custom", "custom_model_config {}", "m.config:1:1: custom_model_config is not served: write a model_config_list"},
		{"logging", wrap("name:'a' base_path:'/a' logging_config: 3"), "m.config:3:25: logging_config must be a message, as in logging_config { ... }"},
		{"escape", wrap(`name: "\q"`), `m.config:3:11: the string of name: "\\q" is no escape`},
		{"list", wrap("name:'a' base_path:'/a' model_version_policy { specific { versions: [1 2] } }"), "m.config:3:72: ',' or ']' is expected in the list of versions"},
		{"depth", strings.Repeat("a {", 17), "messages are nested deeper than 16"},
		{"JSON", `{"models": []}`, "m.config:1:1: a field's name is expected, not '{'"},
		{"a byte order mark", "\ufeffmodel_config_list {}", `m.config:1:1: a field's name is expected, not '\ufeff'`},
	} {
		if _, err := Parse("m.config", c.text); err == nil || !strings.HasSuffix(err.Error(), c.says) {
			t.Errorf("%s: %v\nwant %s", c.name, err, c.says)
		}
	}
}

func TestALoggingConfigIsToleratedAndTold(t *testing.T) {
	config, err := Parse("m.config", `model_config_list { config { name: 'a' base_path: '/a'
		logging_config { log_collector_config { type: "x" filename_prefix: "/tmp/a" } sampling_config { sampling_rate: 0.1 } } } }`)
	if err != nil || len(config.Models) != 1 || len(config.Warnings) != 1 || !strings.HasPrefix(config.Warnings[0], "m.config:2:3: logging_config has no effect") {
		t.Errorf("%v, %v", config, err)
	}
}

func TestTraffic(t *testing.T) {
	got, err := ParseTraffic("t", `
traffic { model: "a" split { label: "stable" weight: 95 } split { version: 7 weight: 5 } shadow { version: 8 percent: 10 } }
traffic { model: "b" shadow { label: "next" } }`)
	want := []Traffic{
		{Model: "a", Split: []Share{{Label: "stable", Weight: 95}, {Version: 7, Weight: 5}}, Shadow: &Share{Version: 8, Weight: 10}},
		{Model: "b", Shadow: &Share{Label: "next", Weight: 100}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for text, says := range map[string]string{
		`traffic { split { version: 1 weight: 1 } }`:                                 "t:1:1: traffic names no model",
		`traffic { model: "a" split { weight: 1 } }`:                                 "t:1:22: split needs a version or a label, and not both",
		`traffic { model: "a" split { version: 1 label: "x" weight: 1 } }`:           "t:1:22: split needs a version or a label, and not both",
		`traffic { model: "a" split { version: 1 } }`:                                "t:1:22: split needs a weight",
		`traffic { model: "a" split { version: 1 weight: 0 } }`:                      `t:1:1: every split of the model "a" has weight 0`,
		`traffic { model: "a" shadow { version: 1 percent: 101 } }`:                  "t:1:42: percent is 101; it must be 0..100",
		"traffic { model: 'a' }\ntraffic { model: 'a' }":                             `t:2:1: there is another traffic for the model "a"`,
		`traffic { model: "a" split { version: 1 weight: 1 version: 2 weight: 3 } }`: "t:1:51: version is given twice; the first is at 1:30",
	} {
		if _, err := ParseTraffic("t", text); err == nil || err.Error() != says {
			t.Errorf("%s: %v\nwant %s", text, err, says)
		}
	}
}

func TestMonitoring(t *testing.T) {
	got, err := ParseMonitoring("m", `prometheus_config { enable: true, path: "/metrics/tf" }`)
	if err != nil || got != (Monitoring{true, "/metrics/tf"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err = ParseMonitoring("m", `prometheus_config { enable: true }`); err != nil || got != (Monitoring{true, MonitoringPath}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for text, says := range map[string]string{
		`prometheus_config { enable: yes }`: "m:1:21: enable must be true or false",
		`prometheus_config { path: "x" }`:   `m:1:21: path is "x"; it must begin with /`,
		`statsd {}`:                         `m:1:1: the monitoring config has no field "statsd"; it has prometheus_config`,
	} {
		if _, err := ParseMonitoring("m", text); err == nil || err.Error() != says {
			t.Errorf("%s: %v\nwant %s", text, err, says)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`model_config_list { config { name: 'a' base_path: "\x41" } } # x`)
	f.Add(`a: [1, 2] b < c: 'd' >`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parse("f", text); err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("no place in %v", err)
		}
	})
}
