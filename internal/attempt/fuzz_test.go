// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package attempt

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nixfleet/nixfleet/internal/nix"
)

// FuzzPlan reads arbitrary bytes as a plan. What is accepted leads the way back, which runs
// as root, into the store and nowhere else, and survives a round trip.
func FuzzPlan(f *testing.F) {
	const path = "/nix/store/00000000000000000000000000000000-nixos-system-h-old"
	f.Add([]byte(`{"attempt":1,"nonce":"0123456789abcdef0123456789abcdef","root":"/","stateDir":"/s","target":{"path":"` + path + `"},"newer":1}`))
	f.Add([]byte(`{"attempt":1,"nonce":"0123456789abcdef0123456789abcdef","root":"/","stateDir":"/s","target":{"path":"` + path + `","specialisation":"../../x"}}`))
	f.Add([]byte(`{"attempt":1,"nonce":"0123456789abcdef0123456789abcdef","root":"/","stateDir":"/s","target":{"path":"` + path + `"},"tools":{"systemctl":"systemctl"}}`))
	f.Add([]byte(`{"attempt":1,"nonce":"0123456789abcdef0123456789abcdef","root":"/","stateDir":"/s","target":{"path":"` + path + `"},"previousProfile":{"path":"/etc"}}`))
	f.Add([]byte(`{"attempt":1,"nonce":"0123456789abcdef0123456789abcdef","root":"/","stateDir":"/s","target":{"path":"` + path + `"},"baseline":{"unitsChecked":true,"failedUnits":["a.service"]}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decodePlan(data)
		if err != nil {
			return
		}
		for _, s := range []System{p.Target, p.Previous, {Path: p.PreviousProfile.Path}} {
			if s == (System{}) {
				continue
			}
			if _, err := nix.ParseStorePath(s.Path.String()); err != nil || strings.Contains(s.String(), "..") || filepath.Clean(s.String()) != s.String() {
				t.Errorf("accepted the system %q, %v", s, err)
			}
		}
		for _, name := range []string{p.Root, p.StateDir} {
			if !filepath.IsAbs(name) {
				t.Errorf("accepted the directory %q", name)
			}
		}
		for _, name := range []string{p.Tools.Systemctl, p.Tools.NixEnv, p.Agent} {
			if name != "" && !filepath.IsAbs(name) {
				t.Errorf("accepted the program %q", name)
			}
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := decodePlan(again); err != nil || !cmp.Equal(p, q) {
			t.Errorf("it changed: %v\n%s", err, cmp.Diff(p, q))
		}
	})
}
