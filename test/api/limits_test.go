//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// limit is what one field takes and refuses on its own, whatever the others say.
type limit struct {
	// at is the path of the field in the full object of its kind (testdata); [n] is an
	// element of a list and {k} an entry of a map.
	at string
	// with is merged into the full object first, for a field that excludes another.
	with    string
	takes   []any
	refuses []refusal
}

type refusal struct {
	value   any
	message string // As the user reads it, after the path of the field.
	rule    string // The name of the rule in the schema.
}

// Patterns as users see them when a value does not match.
const (
	storePathPattern  = `^/nix/store/[0-9a-df-np-sv-z]{32}-[A-Za-z0-9+._?=-]+$`
	cacheURLPattern   = `^https?://[^?#[:space:]]+$`
	publicKeyPattern  = `^[^:[:space:]]+:[A-Za-z0-9+/]{43}=$`
	hostNamePattern   = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	sshKeyPattern     = `^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) AAAA[A-Za-z0-9+/]+={0,2}( .*)?$`
	unitPattern       = `^[A-Za-z0-9:_.\\@-]+\.(service|socket|target|timer|mount|path|device|slice|scope|automount|swap)$`
	checkNamePattern  = `^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$`
	launchdPattern    = `^[A-Za-z0-9._-]+$`
	httpPathPattern   = `^/[^[:space:]#]*$`
	waveNamePattern   = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	labelKeyPattern   = `^(([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`
	labelValuePattern = `^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$`

	digest = "0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd"
)

// oneOf is an enum.
func oneOf(at string, values ...string) limit {
	l := limit{at: at}
	quoted := make([]string, 0, len(values))
	for _, value := range values {
		l.takes = append(l.takes, value)
		quoted = append(quoted, strconv.Quote(value))
	}
	supported := strings.Join(quoted, ", ")
	for _, value := range []string{"Nonsense", "", strings.ToUpper(values[0]) + "x"} {
		l.refuses = append(l.refuses, refusal{value, fmt.Sprintf("Unsupported value: %q: supported values: %s", value, supported), "enum"})
	}
	return l
}

// atLeast is a number without an upper bound.
func atLeast(at string, least int64) limit {
	return limit{at: at, takes: []any{least}, refuses: []refusal{
		{least - 1, fmt.Sprintf("in body should be greater than or equal to %d", least), "minimum"},
	}}
}

// between is a number with both bounds.
func between(at string, least, most int64) limit {
	l := atLeast(at, least)
	l.takes = append(l.takes, most)
	l.refuses = append(l.refuses, refusal{most + 1, fmt.Sprintf("in body should be less than or equal to %d", most), "maximum"})
	return l
}

// text is a string with a length and nothing else.
func text(at string, least, most int) limit {
	return shaped(at, least, most, "", func(n int) string { return strings.Repeat("a", n) }, nil, nil)
}

// shaped is a string with a length and a pattern. sized makes a string of a length that
// matches; takes and refuses are cases of the pattern.
func shaped(at string, least, most int, pattern string, sized func(int) string, takes, refuses []string) limit {
	l := limit{at: at, takes: []any{sized(least), sized(most)}, refuses: []refusal{
		{sized(most + 1), fmt.Sprintf("Too long: may not be more than %d bytes", most), "maxLength"},
	}}
	if least > 0 {
		short := strings.Repeat("a", least-1)
		l.refuses = append(l.refuses, refusal{short, fmt.Sprintf("in body should be at least %d chars long", least), "minLength"})
	}
	for _, value := range takes {
		l.takes = append(l.takes, value)
	}
	for _, value := range refuses {
		l.refuses = append(l.refuses, refusal{value, "in body should match '" + pattern + "'", "pattern"})
	}
	return l
}

// list is a list with bounds on the number of its elements.
func list(at string, least, most int, element func(int) any) limit {
	elements := func(n int) []any {
		made := make([]any, 0, n)
		for i := range n {
			made = append(made, element(i))
		}
		return made
	}
	l := limit{at: at, takes: []any{elements(max(least, 1)), elements(most)}, refuses: []refusal{
		{elements(most + 1), fmt.Sprintf("Too many: %d: must have at most %d items", most+1, most), "maxItems"},
	}}
	if least > 0 {
		l.refuses = append(l.refuses, refusal{elements(0), fmt.Sprintf("in body should have at least %d items", least), "minItems"})
	}
	return l
}

// set is a list without two equal elements.
func set(at string, least, most int, element func(int) any) limit {
	return distinct(list(at, least, most, element), "set", element(0), element(0))
}

// keyed is a list of objects without two that have an equal key.
func keyed(at string, least, most int, key string, element func(int) any) limit {
	first, _ := element(0).(map[string]any)
	return distinct(list(at, least, most, element), "map", first, map[string]any{key: first[key]})
}

func distinct(l limit, rule string, element, shown any) limit {
	data, err := json.Marshal(shown)
	if err != nil {
		panic(err)
	}
	l.refuses = append(l.refuses, refusal{[]any{element, element}, "[1]: Duplicate value: " + string(data), rule})
	return l
}

// notEmpty is an object that must have a field set.
func notEmpty(at string) limit {
	return limit{at: at, refuses: []refusal{{map[string]any{}, "in body should have at least 1 properties", "minProperties"}}}
}

func (l limit) having(change string) limit {
	l.with = change
	return l
}

func words(prefix string) func(int) any {
	return func(i int) any { return fmt.Sprintf("%s%d", prefix, i) }
}

func same(value any) func(int) any {
	return func(int) any { return value }
}

func storePath(at string) limit {
	sized := func(n int) string { return "/nix/store/" + digest + "-" + strings.Repeat("a", n-44) }
	path := "/nix/store/" + digest + "-nixos-system-web-01-26.05"
	return shaped(at, 45, 255, storePathPattern, sized, []string{path, "/nix/store/" + digest + "-a+b._?=-C"}, []string{
		path + "/bin/switch-to-configuration",
		path + "/../../../etc/shadow",
		"/nix/store/../" + digest + "-nixos-system-web-01",
		"/nix/store/" + strings.ToUpper(digest) + "-nixos-system-web-01",
		"/nix/store/" + strings.Replace(digest, "0", "e", 1) + "-nixos-system-web-01",
		"/nix/store/" + strings.Replace(digest, "0", "o", 1) + "-nixos-system-web-01",
		"/nix/store/" + strings.Replace(digest, "0", "t", 1) + "-nixos-system-web-01",
		"/nix/store/" + strings.Replace(digest, "0", "u", 1) + "-nixos-system-web-01",
		"/nix/store/" + digest[1:] + "-nixos-system-web-01",
		"/nix/store/" + digest + "nixos-system-web-01",
		"/gnu/store/" + digest + "-nixos-system-web-01",
		"nix/store/" + digest + "-nixos-system-web-01-26.05",
		path + "\n", path + " x", path + ";reboot", path + "\x00",
	})
}

func cacheURL(at string) limit {
	sized := func(n int) string { return "http://" + strings.Repeat("a", n-7) }
	return shaped(at, 8, 512, cacheURLPattern, sized, []string{"https://cache.example.org", "http://10.0.0.1:8080/main"}, []string{
		"https://cache.example.org?trusted=1", "https://cache.example.org/?priority=1", "https://cache.example.org#x",
		"file:///nix/store", "s3://bucket", "ssh://host", "ssh-ng://host", "daemon://host", "//cache.example.org",
		"https://cache.example.org other", "https://cache.example.org\n", "HTTPS://cache.example.org", " https://cache.example.org",
	})
}

func hostName(at string) limit {
	sized := func(n int) string { return strings.Repeat("a", n) }
	return shaped(at, 1, 200, hostNamePattern, sized, []string{"web-01", "web-01.example.org", "0"}, []string{
		"Web", "web_01", "-web", "web-", ".web", "web.", "a..b", "web/01", "web 01",
	})
}

// step is a part of a path: a field, the element of a list or the entry of a map.
var step = regexp.MustCompile(`[^.\[\]{}]+|\[\d+\]|\{[^}]+\}`)

// setAt sets the value at a path whose parent exists.
func setAt(t testing.TB, content map[string]any, at string, value any) {
	t.Helper()
	value = jsonValue(t, value)
	steps := step.FindAllString(at, -1)
	parent := descend(t, content, at, steps[:len(steps)-1])
	switch last := steps[len(steps)-1]; p := parent.(type) {
	case []any:
		p[index(t, last, len(p))] = value
	case map[string]any:
		p[strings.Trim(last, "{}")] = value
	default:
		t.Fatalf("%s: the full object has no %s", at, last)
	}
}

// fieldsAt returns the object at a path.
func fieldsAt(t testing.TB, content map[string]any, at string) map[string]any {
	t.Helper()
	fields, ok := descend(t, content, at, step.FindAllString(at, -1)).(map[string]any)
	if !ok {
		t.Fatalf("%s is not an object", at)
	}
	return fields
}

func descend(t testing.TB, content any, at string, steps []string) any {
	t.Helper()
	for _, s := range steps {
		switch c := content.(type) {
		case []any:
			content = c[index(t, s, len(c))]
		case map[string]any:
			content = c[strings.Trim(s, "{}")]
		default:
			t.Fatalf("%s: the full object has no %s", at, s)
		}
	}
	return content
}

func index(t testing.TB, s string, length int) int {
	t.Helper()
	n, err := strconv.Atoi(strings.Trim(s, "[]"))
	if err != nil || n >= length {
		t.Fatalf("%s is not an index of a list of %d", s, length)
	}
	return n
}

// attempt sends an object for validation as whoever may write that part of it; nothing
// is stored.
type attempt func(t testing.TB, o *object) error

// attempts prepares a namespace and returns how each part of a kind is written.
func attempts(t testing.TB, kind string) (namespace string, of func(at string) attempt) {
	t.Helper()
	namespace = env.Namespace(t.Context())
	bare := full(t, kind, namespace)
	if kind == "Host" {
		bare = with(t, bare, "spec: {desired: null}")
	}
	stored := create(t, env.Client, bare)
	asManager := managerClient(t)
	creates := func(t testing.TB, o *object) error {
		o = o.DeepCopy()
		o.SetGenerateName("new-")
		o.SetName("")
		delete(o.Object, "status")
		if spec, ok := o.Object["spec"].(map[string]any); ok {
			delete(spec, "desired")
		}
		return env.Client.Create(t.Context(), o, client.DryRunAll)
	}
	assigns := func(t testing.TB, o *object) error {
		spec, _ := o.Object["spec"].(map[string]any)
		change := map[string]any{"spec": map[string]any{"desired": spec["desired"]}}
		return asManager.Patch(t.Context(), stored.DeepCopy(), mergePatch(t, change), client.DryRunAll)
	}
	reports := func(t testing.TB, o *object) error {
		updated := stored.DeepCopy()
		updated.Object["status"] = o.Object["status"]
		return env.Client.Status().Update(t.Context(), updated, client.DryRunAll)
	}
	return namespace, func(at string) attempt {
		switch {
		case strings.HasPrefix(at, "spec.desired"):
			return assigns
		case strings.HasPrefix(at, "status"):
			return reports
		default:
			return creates
		}
	}
}

// limits are all of a kind.
func limits() map[string][]limit {
	return map[string][]limit{
		"Host":    append(hostLimits(), hostStatusLimits()...),
		"Release": releaseLimits(),
		"Rollout": append(rolloutLimits(), rolloutStatusLimits()...),
	}
}

func TestLimits(t *testing.T) {
	for kind, all := range limits() {
		t.Run(kind, func(t *testing.T) {
			namespace, of := attempts(t, kind)
			for _, part := range []string{"spec", "spec.desired", "status"} {
				check(t, of(part)(t, full(t, kind, namespace)), "")
			}
			for _, l := range all {
				t.Run(l.at, func(t *testing.T) { l.test(t, with(t, full(t, kind, namespace), l.with), of(l.at)) })
			}
		})
	}
}

// test tries each value in the object.
func (l limit) test(t *testing.T, o *object, try attempt) {
	for _, value := range l.takes {
		setAt(t, o.Object, l.at, value)
		if err := try(t, o); err != nil {
			t.Errorf("%s = %s: refused: %v", l.at, brief(value), err)
		}
	}
	for _, r := range l.refuses {
		setAt(t, o.Object, l.at, r.value)
		err := try(t, o)
		if err == nil {
			t.Errorf("%s = %s: accepted, want it refused: %s", l.at, brief(r.value), r.message)
			continue
		}
		wantRefused(t, err, r.message)
		wantRefused(t, err, strings.NewReplacer("{", ".", "}", "").Replace(l.at))
	}
}

func brief(value any) string {
	const enough = 100
	s := fmt.Sprintf("%#v", value)
	return s[:min(len(s), enough)]
}
