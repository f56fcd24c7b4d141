//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
	"github.com/nixfleet/nixfleet/internal/rollout/preview"
)

const toB = `apiVersion: nixfleet.io/v1alpha1
kind: Rollout
metadata: {name: to-b}
spec:
  release: b
  selector: {}
  strategy:
    type: Staged
    waves:
    - {name: canary, size: 1, soakSeconds: 60}
    - {name: rest}
`

const releaseB = `apiVersion: nixfleet.io/v1alpha1
kind: Release
metadata: {name: b}
spec:
  caches: [{url: "https://cache.example.org", publicKeys: ["cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]}]
  hosts:
    web-01: /nix/store/1s1nnhrcgkygy9y5skrpavwx2jzzpcmf-nixos-system-web-01
    web-02: /nix/store/1s1nnhrcgkygy9y5skrpavwx2jzzpcmf-nixos-system-web-02
---
`

// planned writes a manifest to a file and plans it.
func planned(t *testing.T, flags []string, text string, more ...string) output {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rollout.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return execute(t, append(append(append([]string{}, flags...), "rollout", "plan", file), more...)...)
}

// secondHost adds web-02 to the fleet of web-01, and makes both healthy.
func secondHost(t *testing.T, namespace string) {
	t.Helper()
	h := &nfv1.Host{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web-02"}, Spec: nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux, Lifecycle: nfv1.LifecycleActive}}
	create(t, h)
	for _, kind := range []string{nfv1.ConditionOnline, nfv1.ConditionHealthy} {
		h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: "Test", LastTransitionTime: metav1.Now()})
	}
	h.Status.ObservedGeneration = 1
	updateStatus(t, h)
}

func TestPlanOfAFile(t *testing.T) {
	namespace, flags := fleetOf(t)
	secondHost(t, namespace)
	got := planned(t, flags, releaseB+toB, "-o", "json")
	if got.code != ExitDone {
		t.Fatalf("got code %d and %s", got.code, got.errOut)
	}
	var f preview.Forecast
	if err := json.Unmarshal([]byte(got.out), &f); err != nil {
		t.Fatal(err)
	}
	if f.End.Phase != nfv1.RolloutPhaseSucceeded || f.Order != preview.OrderDrawn || len(f.Waves) != 2 || f.Waves[0].Size != 1 || f.Waves[0].SoakSeconds != 60 {
		t.Errorf("got %+v", f)
	}
	if len(f.Waves[0].Candidates) != 2 {
		t.Errorf("the canary is drawn of %v, want both hosts", f.Waves[0].Candidates)
	}
	var rollouts nfv1.RolloutList
	if err := env.Client.List(t.Context(), &rollouts); err != nil {
		t.Fatal(err)
	}
	for _, r := range rollouts.Items {
		if r.Namespace == namespace {
			t.Errorf("the plan stored Rollout %s", r.Name)
		}
	}
	text := planned(t, flags, releaseB+toB)
	if text.code != ExitDone || !strings.Contains(text.out, "Wave canary, 1 drawn of") || !strings.Contains(text.out, "release b is found good") {
		t.Errorf("got code %d, errors %q and\n%s", text.code, text.errOut, text.out)
	}
}

func TestPlanOfARolloutThatIsThere(t *testing.T) {
	namespace, flags := fleetOf(t)
	secondHost(t, namespace)
	r := aRollout(t, namespace, nfv1.RolloutPhasePending)
	byName := execute(t, append(flags, "rollout", "plan", r.Name)...)
	if byName.code != ExitDone || !strings.Contains(byName.out, "Blocked: there is no release b in namespace "+namespace+" yet") {
		t.Errorf("got code %d, errors %q and\n%s", byName.code, byName.errOut, byName.out)
	}
	// A file over it is planned with its UID, which settles the order.
	over := planned(t, flags, releaseB+strings.SplitAfter(toB, "selector: {}\n")[0], "-o", "yaml")
	if over.code != ExitDone || !strings.Contains(over.out, "order: Known") {
		t.Errorf("got code %d, errors %q and\n%s", over.code, over.errOut, over.out)
	}
}

func TestPlanRefusesWhatTheAPIWouldRefuse(t *testing.T) {
	namespace, flags := fleetOf(t)
	tests := map[string]struct{ text, want string }{
		"unknown field":      {strings.Replace(toB, "soakSeconds", "soakSecond", 1), "soakSecond"},
		"broken rule":        {strings.Replace(toB, "size: 1", "size: 0", 1), "size"},
		"no rollout":         {releaseB, "has no Rollout"},
		"two rollouts":       {toB + "---\n" + toB, "several Rollouts"},
		"something else":     {"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n", "Secret s is not of nixfleet.io/v1alpha1"},
		"a host":             {strings.NewReplacer("kind: Rollout", "kind: Host").Replace(toB), "a plan takes a Rollout"},
		"no name":            {strings.Replace(toB, "name: to-b", "generateName: to-", 1), "metadata.name is missing"},
		"no YAML":            {"a: [b", "rollout.yaml"},
		"another namespace":  {strings.Replace(toB, "name: to-b", "name: to-b, namespace: elsewhere", 1), "--namespace says " + namespace},
		"nothing but spaces": {"\n", "no Rollout"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := planned(t, flags, tc.text)
			if got.code != ExitFailed || !strings.Contains(got.errOut, tc.want) || got.out != "" {
				t.Errorf("got code %d, errors %q and %q; want %q", got.code, got.errOut, got.out, tc.want)
			}
		})
	}
	missing := execute(t, append(flags, "rollout", "plan", "./not-there.yaml")...)
	if missing.code != ExitFailed || !strings.Contains(missing.errOut, "not-there.yaml") {
		t.Errorf("got code %d and %q", missing.code, missing.errOut)
	}
	unknown := execute(t, append(flags, "rollout", "plan", "nobody")...)
	if unknown.code != ExitFailed || !strings.Contains(unknown.errOut, `no Rollout "nobody"`) {
		t.Errorf("got code %d and %q", unknown.code, unknown.errOut)
	}
}

func TestWhyOfAHost(t *testing.T) {
	namespace, flags := fleetOf(t)
	aRollout(t, namespace, nfv1.RolloutPhasePending)
	got := execute(t, append(flags, "rollout", "why", "to-b", "web-01")...)
	if got.code != ExitDone || !strings.Contains(got.out, rollout.ReasonReleaseNotFound) {
		t.Errorf("got code %d, errors %q and\n%s", got.code, got.errOut, got.out)
	}
	program := execute(t, append(flags, "rollout", "why", "to-b", "web-01", "-o", "json")...)
	var a preview.Answer
	if err := json.Unmarshal([]byte(program.out), &a); err != nil || a.Moves != preview.MovesLater {
		t.Errorf("got %v and %+v of\n%s", err, a, program.out)
	}
	missing := execute(t, append(flags, "rollout", "why", "to-b", "web-99")...)
	if missing.code != ExitFailed || !strings.Contains(missing.errOut, `no Host "web-99"`) {
		t.Errorf("got code %d and %q", missing.code, missing.errOut)
	}
}
