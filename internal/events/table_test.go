// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package events

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nixfleet/nixfleet/internal/rollout"
)

// reasons are the values of the constants Reason... of a file.
func reasons(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		if text, ok := spec.Values[0].(*ast.BasicLit); ok {
			value, err := strconv.Unquote(text.Value)
			if err != nil {
				t.Fatal(err)
			}
			out[spec.Names[0].Name] = value
		}
		return true
	})
	if len(out) == 0 {
		t.Fatalf("%s has no reasons; this test is out of date", path)
	}
	return out
}

// ofHosts are reasons of the planner that hold a single host; they are notes of a plan and
// never where a rollout stands.
var ofHosts = []string{
	rollout.ReasonWithdrawn, rollout.ReasonNotFound, rollout.ReasonClosureMissing, rollout.ReasonLifecycle,
	rollout.ReasonDeleting, rollout.ReasonNotSelected, rollout.ReasonNoPrevious,
}

func TestEveryReasonOfThePlannerIsDeclared(t *testing.T) {
	declared := slices.Concat(Reasons(KindRollout), FailureReasons())
	for name, reason := range reasons(t, filepath.Join("..", "rollout", "reasons.go")) {
		if slices.Contains(declared, reason) == slices.Contains(ofHosts, reason) {
			t.Errorf("%s has to be declared, or to be one that is about a single host and never an event", name)
		}
	}
}

func TestEveryReasonOfHereIsDeclared(t *testing.T) {
	declared := slices.Concat(Reasons(KindRollout), Reasons(KindHost))
	for name, reason := range reasons(t, "table.go") {
		if !slices.Contains(declared, reason) {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// Whatever is declared has to be named by a test or a story of the planner, or in the code
// of the agent, so that no reason is documented that nothing ever gives.
func TestEveryReasonIsGiven(t *testing.T) {
	var text strings.Builder
	for _, pattern := range []string{
		"../../controllers/*/*_test.go", "../rollout/*_test.go", "../rollout/testdata/stories/*.txt",
		"../agent/*.go", "../agent/*/*.go", "plan_test.go",
	} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(data)
		}
	}
	names := map[string][]string{}
	for _, file := range []string{"table.go", "../rollout/reasons.go", "../../api/v1alpha1/conditions.go"} {
		for name, reason := range reasons(t, file) {
			names[reason] = append(names[reason], name)
		}
	}
	for _, d := range Table() {
		word := append(names[d.Reason], d.Reason, "Attempt"+d.Reason)
		if !regexp.MustCompile(`\b(` + strings.Join(word, "|") + `)\b`).MatchString(text.String()) {
			t.Errorf("no test has the reason %s of events on a %s", d.Reason, d.Kind)
		}
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Table() {
		if key := d.Kind + "/" + d.Reason; seen[key] {
			t.Errorf("%s is declared twice", key)
		} else {
			seen[key] = true
		}
		if !regexp.MustCompile(`^[A-Z][A-Za-z]{1,127}$`).MatchString(d.Reason) || len(d.Types) == 0 || d.Meaning == "" {
			t.Errorf("%+v lacks something", d)
		}
		if slices.Equal(d.Types, warning()) && d.Action == "" && d.Reason != rollout.ReasonCancelled {
			t.Errorf("%s is a warning, and nothing says what to do", d.Reason)
		}
	}
}

func TestHostReasonTakesNoWordsOfHosts(t *testing.T) {
	for failure, want := range map[string]string{"Timeout": "Timeout", "RolledBack": "RolledBack", "": "HostFailed", "evil\n": "HostFailed"} {
		if got := HostReason(failure); got != want {
			t.Errorf("HostReason(%q) = %s, want %s", failure, got, want)
		}
	}
}
