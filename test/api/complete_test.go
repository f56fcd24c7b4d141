//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"maps"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/sets"
)

// untestable are rules that no request can break.
var untestable = sets.New(
	// Defaults fill them before they are looked at.
	"Host spec.activation minProperties",
	"Rollout spec.strategy minProperties",
)

// elsewhere are CEL rules with a test of their own.
var elsewhere = sets.New(nameTooLong)

// TestEveryRuleIsTested compares the schemas that the API server has with the tables of
// this package, so that no rule can be added or changed without a test.
func TestEveryRuleIsTested(t *testing.T) {
	for kind, limits := range limits() {
		t.Run(kind, func(t *testing.T) {
			tested := sets.New[string]()
			for _, l := range limits {
				for _, r := range l.refuses {
					tested.Insert(kind + " " + indices.ReplaceAllString(l.at, "$1") + " " + r.rule)
				}
			}
			found := &found{}
			found.walk("", schemaOf(t, kind))
			for _, limit := range found.limits {
				if rule := kind + " " + limit; !tested.Has(rule) && !untestable.Has(rule) {
					t.Errorf("no case of %q in limits()", rule)
				}
			}
			checkCEL(t, kind, limits, found.cel)
			if diff := cmp.Diff(found.required, required[kind]); diff != "" {
				t.Errorf("required fields in the schema (-) and in the tests (+):\n%s", diff)
			}
			if diff := cmp.Diff(found.defaults, defaults[kind]); diff != "" {
				t.Errorf("defaults in the schema (-) and in the tests (+):\n%s", diff)
			}
		})
	}
}

func checkCEL(t *testing.T, kind string, limits []limit, messages []string) {
	t.Helper()
	refused := sets.New[string]()
	for _, r := range rules()[kind] {
		refused.Insert(r.refused)
	}
	for _, l := range limits {
		for _, r := range l.refuses {
			refused.Insert(r.message)
		}
	}
	for _, message := range messages {
		if !refused.Has(message) && !elsewhere.Has(message) {
			t.Errorf("no case is refused with %q", message)
		}
	}
}

func schemaOf(t *testing.T, kind string) *apiextensionsv1.JSONSchemaProps {
	t.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	o := &object{}
	o.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	if err := env.Client.Get(t.Context(), types.NamespacedName{Name: resources[kind] + ".nixfleet.io"}, o); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, crd); err != nil {
		t.Fatal(err)
	}
	if len(crd.Spec.Versions) != 1 {
		t.Fatalf("%s has %d versions, this test knows one", kind, len(crd.Spec.Versions))
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

var resources = map[string]string{"Host": "hosts", "Release": "releases", "Rollout": "rollouts"}

// indices are the parts of a path that a schema does not have: [0] becomes [], {a} {}.
var indices = regexp.MustCompile(`([\[{])[^\]}]*`)

// found is what a schema asks for.
type found struct {
	limits   []string // "path rule"
	cel      []string // Messages.
	required []string // Paths.
	defaults map[string]string
}

func (f *found) walk(at string, s *apiextensionsv1.JSONSchemaProps) {
	f.look(at, s)
	// Conditions are Kubernetes' own type, and so is metadata.
	if at == "status.conditions" || at == "metadata" {
		return
	}
	prefix := at
	if prefix != "" {
		prefix += "."
	}
	for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[field]
		f.walk(prefix+field, &property)
	}
	if s.Items != nil {
		f.walk(at+"[]", s.Items.Schema)
	}
	if s.AdditionalProperties != nil {
		f.walk(at+"{}", s.AdditionalProperties.Schema)
	}
}

func (f *found) look(at string, s *apiextensionsv1.JSONSchemaProps) {
	for rule, present := range map[string]bool{
		"enum": s.Enum != nil, "pattern": s.Pattern != "", "minimum": s.Minimum != nil, "maximum": s.Maximum != nil,
		"minLength": positive(s.MinLength), "maxLength": s.MaxLength != nil, "minItems": positive(s.MinItems), "maxItems": s.MaxItems != nil,
		"minProperties": positive(s.MinProperties), "maxProperties": s.MaxProperties != nil,
		"set": s.XListType != nil && *s.XListType == "set", "map": s.XListType != nil && *s.XListType == "map",
	} {
		if present {
			f.limits = append(f.limits, at+" "+rule)
		}
	}
	for _, rule := range s.XValidations {
		// A message that is made of fields is in the rules with its values.
		if rule.Message != "" {
			f.cel = append(f.cel, rule.Message)
		}
	}
	for _, field := range s.Required {
		f.required = append(f.required, join(at, field))
	}
	if s.Default != nil {
		if f.defaults == nil {
			f.defaults = map[string]string{}
		}
		f.defaults[at] = string(s.Default.Raw)
	}
}

func join(at, field string) string {
	if at == "" {
		return field
	}
	return at + "." + field
}

func positive(n *int64) bool { return n != nil && *n > 0 }
