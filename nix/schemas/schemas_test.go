// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package schemas

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"

	"github.com/nixfleet/nixfleet/internal/agent"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// TestAgentReadsItsConfiguration has the agent read what the module writes. Unknown keys
// are refused, so this fails when either side renames one.
func TestAgentReadsItsConfiguration(t *testing.T) {
	if got := checkConfiguration(t, read(t, "samples/agent.json")); got != "ok" {
		t.Errorf("the agent refuses what the module writes: %s", got)
	}
	changed := bytes.Replace(read(t, "samples/agent.json"), []byte(`"caFile"`), []byte(`"CAPath"`), 1)
	if got := checkConfiguration(t, changed); !strings.Contains(got, "CAPath") {
		t.Errorf("the agent says %q of a key that it does not know", got)
	}
}

// checkConfiguration is what "nixfleet-agent check" says about a configuration.
func checkConfiguration(t *testing.T, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := agent.NewCommand()
	cmd.SetOut(&out)
	// There is no gateway and no key here: the command fails, and says what about.
	cmd.SetArgs([]string{"check", "--config", file, "--state-dir", t.TempDir(), "--ca-file", filepath.Join(t.TempDir(), "none")})
	if err := cmd.ExecuteContext(t.Context()); err == nil {
		t.Fatalf("the agent found a gateway:\n%s", out.String())
	}
	for line := range strings.Lines(out.String()) {
		if rest, ok := strings.CutPrefix(line, "configuration"); ok {
			return strings.TrimSpace(rest)
		}
	}
	t.Fatalf("the agent says nothing about its configuration:\n%s", out.String())
	return ""
}

func TestHostIdentity(t *testing.T) {
	schema := load(t, "host.schema.json")
	got, err := system(t, "host.json", read(t, "samples/host.json")).HostIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if !got.Fits("web-01", "x86_64-linux") {
		t.Errorf("what the module writes for web-01 does not fit it: %+v", got)
	}
	expectValid(t, schema, read(t, "samples/host.json"), true)

	tests := map[string]struct {
		data  string
		valid bool
	}{
		"any host":                {`{"name": "*", "platform": "aarch64-darwin"}`, true},
		"a field of tomorrow":     {`{"name": "a", "platform": "aarch64-linux", "serial": 7}`, true},
		"no name":                 {`{"platform": "x86_64-linux"}`, false},
		"no platform":             {`{"name": "a"}`, false},
		"a name of another type":  {`{"name": 1, "platform": "x86_64-linux"}`, false},
		"no object":               {`["a", "x86_64-linux"]`, false},
		"an empty name":           {`{"name": "", "platform": "x86_64-linux"}`, false},
		"two objects, one behind": {`{"name": "a", "platform": "x86_64-linux"} {}`, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := system(t, "host.json", []byte(tc.data)).HostIdentity()
			if (err == nil) != tc.valid {
				t.Errorf("the agent: got %v, valid is %v", err, tc.valid)
			}
			expectValid(t, schema, []byte(tc.data), tc.valid)
		})
	}
}

func TestHealthChecks(t *testing.T) {
	schema := load(t, "health-checks.schema.json")
	seen := map[string]bool{}
	for _, name := range []string{"health-checks.json", "health-checks-darwin.json"} {
		data := read(t, "samples/"+name)
		expectValid(t, schema, data, true)
		carried, err := system(t, "health-checks.json", data).HealthChecks()
		if err != nil {
			t.Fatal(err)
		}
		checks, err := health.ParseFile(carried)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, c := range checks {
			seen[c.Type] = true
		}
		expectKept(t, data, checks)
	}
	types := slices.Sorted(maps.Keys(seen))
	if diff := cmp.Diff([]string{"exec", "http", "launchd", "systemd", "tcp"}, types); diff != "" {
		t.Errorf("types in the samples (-want +got):\n%s", diff)
	}
}

// expectKept sees that nothing of a sample was lost on the way: a field that the agent
// does not know is left out in silence.
func expectKept(t *testing.T, data []byte, checks []health.Check) {
	t.Helper()
	var file struct {
		Checks []map[string]any `json:"checks"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for i, written := range file.Checks {
		settings := map[string]any{"http": checks[i].HTTP, "tcp": checks[i].TCP, "exec": checks[i].Exec, "systemd": checks[i].Systemd, "launchd": checks[i].Launchd}[checks[i].Type]
		encoded, err := json.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(encoded, &got); err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(got, func(_ string, v any) bool { return reflect.ValueOf(v).IsZero() })
		want, _ := written[checks[i].Type].(map[string]any)
		want = maps.Clone(want)
		maps.DeleteFunc(want, func(_ string, v any) bool { return reflect.ValueOf(v).IsZero() })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("check %q (-written +read):\n%s", checks[i].Name, diff)
		}
		if seconds, _ := written["timeoutSeconds"].(float64); checks[i].Timeout.Seconds() != seconds {
			t.Errorf("check %q: the timeout is %v, and %v seconds were written", checks[i].Name, checks[i].Timeout, seconds)
		}
	}
}

func TestHealthChecksAreRefusedAlike(t *testing.T) {
	schema := load(t, "health-checks.schema.json")
	tests := map[string]struct {
		check string
		valid bool
	}{
		"the least":              {`{"name": "a", "type": "tcp", "tcp": {"address": "127.0.0.1:1"}}`, true},
		"a field of tomorrow":    {`{"name": "a", "type": "tcp", "tcp": {"address": "127.0.0.1:1", "quick": true}}`, true},
		"no name":                {`{"type": "tcp", "tcp": {"address": "127.0.0.1:1"}}`, false},
		"a long name":            {`{"name": "` + strings.Repeat("a", 64) + `", "type": "tcp", "tcp": {"address": "127.0.0.1:1"}}`, false},
		"no type":                {`{"name": "a"}`, false},
		"http without settings":  {`{"name": "a", "type": "http"}`, false},
		"http without url":       {`{"name": "a", "type": "http", "http": {}}`, false},
		"tcp without settings":   {`{"name": "a", "type": "tcp", "http": {"url": "http://127.0.0.1"}}`, false},
		"exec without settings":  {`{"name": "a", "type": "exec"}`, false},
		"exec without argv":      {`{"name": "a", "type": "exec", "exec": {"argv": []}}`, false},
		"exec as nobody we know": {`{"name": "a", "type": "exec", "exec": {"argv": ["/nix/store/x"], "user": "a b"}}`, false},
		"systemd without units":  {`{"name": "a", "type": "systemd", "systemd": {"units": []}}`, false},
		"systemd, no suffix":     {`{"name": "a", "type": "systemd", "systemd": {"units": ["nginx"]}}`, false},
		"launchd, no label":      {`{"name": "a", "type": "launchd", "launchd": {"labels": ["a b"]}}`, false},
		"a negative timeout":     {`{"name": "a", "type": "tcp", "timeoutSeconds": -1, "tcp": {"address": "127.0.0.1:1"}}`, false},
		"a long timeout":         {`{"name": "a", "type": "tcp", "timeoutSeconds": 1801, "tcp": {"address": "127.0.0.1:1"}}`, false},
		"a timeout in words":     {`{"name": "a", "type": "tcp", "timeoutSeconds": "1m", "tcp": {"address": "127.0.0.1:1"}}`, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			data := []byte(`{"checks": [` + tc.check + `]}`)
			if _, err := health.ParseFile(data); (err == nil) != tc.valid {
				t.Errorf("the agent: got %v, valid is %v", err, tc.valid)
			}
			expectValid(t, schema, data, tc.valid)
		})
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// system is a system with one file below etc/nixfleet.
func system(t *testing.T, name string, data []byte) nix.Closure {
	t.Helper()
	const path = "/nix/store/00000000000000000000000000000000-nixos-system"
	root := t.TempDir()
	dir := filepath.Join(root, path, "etc", "nixfleet")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	parsed, err := nix.ParseStorePath(path)
	if err != nil {
		t.Fatal(err)
	}
	return nix.OpenClosure(root, parsed)
}

func load(t *testing.T, name string) validation.SchemaValidator {
	t.Helper()
	var schema apiextensionsv1.JSONSchemaProps
	if err := json.Unmarshal(read(t, name), &schema); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&schema, &internal, nil); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	validator, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return validator
}

func expectValid(t *testing.T, schema validation.SchemaValidator, data []byte, want bool) {
	t.Helper()
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		if want {
			t.Errorf("no JSON: %v", err)
		}
		return
	}
	if result := schema.Validate(value); result.IsValid() != want {
		t.Errorf("the schema: valid is %v, want %v: %v", result.IsValid(), want, result.Errors)
	}
}
