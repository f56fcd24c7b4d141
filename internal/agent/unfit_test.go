// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestUnknownKeysHaveLines refuses keys by name and line, whatever else is wrong, and reads
// the rest of the file.
func TestUnknownKeysHaveLines(t *testing.T) {
	good := "server: https://a\ncaFile: /c\nhostName: h\ntrustedPublicKeys: [\"" + testKey + "\"]\n"
	for name, tc := range map[string]struct {
		text string
		want []string
		rest bool // the rest of it is in order
	}{
		"misspelt":            {"# the host\n" + good + "heartbeat: 3\n", []string{`"heartbeat" (line 6)`}, true},
		"two":                 {"a: 1\n" + good + "b:\n  c: 2\n", []string{`"a" (line 1)`, `"b" (line 6)`}, true},
		"another case":        {good + "Tags: [a]\n", []string{`"Tags" (line 5)`}, true},
		"JSON":                {`{"server": "https://a",` + "\n" + `"caFile": "/c", "hostName": "h", "x": 1, "trustedPublicKeys": ["` + testKey + `"]}`, []string{`"x" (line 2)`}, true},
		"and a wrong value":   {good + "namespace: A\nx: 1\n", []string{`"x" (line 6)`, `namespace "A"`}, false},
		"and a wrong type":    {good + "tags: 1\nx: 1\n", []string{`"x" (line 6)`, "tags"}, false},
		"a key twice":         {good + "server: https://b\n", []string{"line 5", "server"}, false},
		"not a mapping":       {"- server\n", []string{"cannot unmarshal array"}, false},
		"not YAML":            {"server: [\n", []string{"yaml"}, false},
		"everything in order": {good, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parseConfig([]byte(tc.text), func(*Config) {})
			if (err != nil) != (tc.want != nil) {
				t.Fatalf("error %v", err)
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not named in: %v", part, err)
				}
			}
			if (c.StateDir != "") != tc.rest {
				t.Errorf("the rest: %+v", c)
			}
		})
	}
}

// TestUnknownKeysAreRefused when nothing is under way.
func TestUnknownKeysAreRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	text := "server: https://a\ncaFile: /c\nhostName: h\nroot: " + dir + "\ntrustedPublicKeys: [\"" + testKey + "\"]\nfromTheFuture: true\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := command(t, "run", "--config", file)
	if err == nil || !strings.Contains(err.Error(), file+`: unknown keys: "fromTheFuture" (line 6)`) {
		t.Errorf("got %v", err)
	}
}

// unfit starts an agent that does not know a key of its configuration.
func (b *body) unfit(t *testing.T) error {
	t.Helper()
	m := b.start(t, b.boot)
	m.host = nil
	return m.runUnfit(t.Context(), NewJournalFile(b.dir, time.Now), &UnknownKeysError{Keys: []string{"x (line 1)"}})
}

// TestUnknownKeysDoNotStrandAHost has an activation leave a configuration that the agent
// which is started next does not know in full. The host goes back to what ran before, and
// the next agent, with the old configuration, says why.
func TestUnknownKeysDoNotStrandAHost(t *testing.T) {
	for name, inMiddle := range map[string]string{"after the activation": "confirm", "in the middle of it": "test"} {
		t.Run(name, func(t *testing.T) {
			b := newBody(t)
			if inMiddle == "test" {
				b.killIn = "test"
			} else {
				b.onConfirm = func() { panic(killed{}) }
			}
			if !b.live(t, "boot-1") {
				t.Fatal("the agent was not replaced")
			}
			var unknown *UnknownKeysError
			if err := b.unfit(t); !errors.As(err, &unknown) {
				t.Fatalf("got %v", err)
			}
			if b.running != oldSystem || b.profile.Path != oldSystem {
				t.Fatalf("%s runs; %s", b.running, b.story())
			}
			// With nothing under way it does nothing at all.
			done := len(b.actions)
			if err := b.unfit(t); !errors.As(err, &unknown) || len(b.actions) != done {
				t.Fatalf("got %v; %s", err, b.story())
			}
			if inMiddle == "test" { // nothing speaks against the system; its order stands
				return
			}
			b.onConfirm = nil
			b.live(t, "boot-1")
			b.wantEnd(t, nfv1.AttemptRolledBack, nfv1.ReasonConfirmTimeout)
			if !strings.Contains(b.last.Attempt.Message, "x (line 1)") {
				t.Errorf("it says %q", b.last.Attempt.Message)
			}
		})
	}
}

// TestUnfitAgentFinishesACommit that was decided before: the agent of the system had
// confirmed it.
func TestUnfitAgentFinishesACommit(t *testing.T) {
	b := newBody(t)
	b.killIn = "set"
	if !b.live(t, "boot-1") {
		t.Fatal("the agent was not killed")
	}
	if err := b.unfit(t); err == nil {
		t.Fatal("it goes on")
	}
	if b.running != newSystem || b.profile.Path != newSystem || b.bootDefault != newSystem {
		t.Errorf("%s runs; %s", b.running, b.story())
	}
}
