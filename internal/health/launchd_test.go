// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLaunchdCheck reads what launchctl prints: testdata/launchctl-print-*.txt.
func TestLaunchdCheck(t *testing.T) {
	launchctl := func(_ context.Context, args ...string) (string, int, error) {
		label := strings.TrimPrefix(args[1], "system/")
		if args[0] != "print" || label == args[1] {
			t.Errorf("called with %q", args)
		}
		switch label {
		case "org.example.gone":
			return "Could not find service \"org.example.gone\" in domain for system\n", 113, nil
		case "org.example.broken":
			return "", 1, nil
		case "org.example.unreachable":
			return "", 0, errors.New("no such file")
		}
		data, err := os.ReadFile(filepath.Join("testdata", "launchctl-print-"+strings.TrimPrefix(label, "org.example.")+".txt"))
		return string(data), 0, err
	}
	for label, want := range map[string]string{
		"org.example.running":     "",
		"org.example.waiting":     "org.example.waiting is not running (last exit code 78: EX_CONFIG)",
		"org.example.odd":         "org.example.odd has no state that this agent can read",
		"org.example.gone":        "org.example.gone is not loaded",
		"org.example.broken":      "exited with 1",
		"org.example.unreachable": "ask launchd for org.example.unreachable: no such file",
	} {
		t.Run(label, func(t *testing.T) {
			p := &Prober{Launchctl: launchctl}
			got := p.Once(t.Context(), []Check{{Name: "x", Type: "launchd", Launchd: &Launchd{Labels: []string{"org.example.running", label}}}})[0]
			if got.Healthy != (want == "") || !strings.Contains(got.Message, want) {
				t.Errorf("got %+v, want %q", got, want)
			}
		})
	}
	got := (&Prober{}).Once(t.Context(), []Check{{Name: "x", Type: "launchd", Launchd: &Launchd{Labels: []string{"a"}}}})[0]
	if got.Healthy || !strings.Contains(got.Message, "launchd does not run this host") {
		t.Errorf("got %+v", got)
	}
}
