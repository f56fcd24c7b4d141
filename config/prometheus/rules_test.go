// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package prometheus_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/nixfleet/nixfleet/internal/events"
	"github.com/nixfleet/nixfleet/internal/metrics"
)

type rule struct {
	Alert       string
	Expr        string
	Labels      map[string]string
	Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	data, err := os.ReadFile("rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Spec struct{ Groups []struct{ Rules []rule } }
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	var out []rule
	for _, g := range file.Spec.Groups {
		out = append(out, g.Rules...)
	}
	if len(out) == 0 {
		t.Fatal("there are no rules")
	}
	return out
}

// selector is a metric in an expression with what it asks of a label. All metrics of the
// rules begin with nixfleet_, so that this needs no parser of the language.
var (
	selector = regexp.MustCompile(`\b(nixfleet_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)
	word     = regexp.MustCompile(`\b[a-z_]+_(?:seconds|total|count|bucket|sum)\b`)
)

func TestRulesAskForWhatThereIs(t *testing.T) {
	for _, r := range rules(t) {
		found := selector.FindAllStringSubmatch(r.Expr, -1)
		if len(found) == 0 {
			t.Errorf("%s looks at no metric of the manager", r.Alert)
		}
		for _, s := range found {
			d := declared(t, r, s[1])
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				checkLabel(t, r, d, m[1], strings.Split(m[3], "|"))
			}
		}
		for _, w := range word.FindAllString(r.Expr, -1) {
			if !strings.HasPrefix(w, "nixfleet_") {
				t.Errorf("%s looks at %s, which is not the manager's", r.Alert, w)
			}
		}
	}
}

func declared(t *testing.T, r rule, name string) metrics.Definition {
	t.Helper()
	for _, d := range metrics.Table() {
		series := []string{d.Name}
		if d.Type == metrics.Histogram {
			series = []string{d.Name + "_count", d.Name + "_sum", d.Name + "_bucket"}
		}
		if slices.Contains(series, name) {
			return d
		}
	}
	t.Errorf("%s looks at %s, which the manager does not have", r.Alert, name)
	return metrics.Definition{}
}

func checkLabel(t *testing.T, r rule, d metrics.Definition, name string, values []string) {
	t.Helper()
	i := slices.IndexFunc(d.Labels, func(l metrics.Label) bool { return l.Name == name })
	if i < 0 {
		t.Errorf("%s asks for the label %s of %s, which it does not have", r.Alert, name, d.Name)
		return
	}
	known := d.Labels[i].Values
	if name == "reason" {
		known = events.Reasons(events.KindRollout)
	}
	for _, v := range values {
		if !slices.Contains(known, v) {
			t.Errorf("%s asks for %s=%q of %s, which it never has", r.Alert, name, v, d.Name)
		}
	}
}

func TestEveryAlertHasASection(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules(t) {
		_, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "docs/reference/metrics.md#")
		heading := regexp.MustCompile(`(?im)^### ` + strings.ReplaceAll(regexp.QuoteMeta(anchor), "-", " ") + `\n\n` + "`" + r.Alert + "`")
		if anchor == "" || !heading.Match(text) {
			t.Errorf("%s names the section %q, which is not in metrics.md or about another alert", r.Alert, anchor)
		}
		if r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
			t.Errorf("%s has no severity or no summary", r.Alert)
		}
	}
}
