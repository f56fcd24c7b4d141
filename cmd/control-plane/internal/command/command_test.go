// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package command

import (
	"bytes"
	"runtime/debug"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	deps := []*debug.Module{
		{Path: "go.etcd.io/etcd/server/v3", Version: "v3.7.3"},
		{Path: "k8s.io/kubernetes", Version: "v1.37.2"},
		{Path: "example.com/other", Version: "v1.0.0"},
	}
	tests := map[string]struct {
		info debug.BuildInfo
		want string
	}{
		"with modules":     {info: debug.BuildInfo{Deps: deps}, want: "v0.1.0, with Kubernetes v1.37.2, etcd v3.7.3"},
		"nothing is noted": {want: "v0.1.0"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := describe("v0.1.0", &tc.info); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestHelpShowsExamplesAndFlags(t *testing.T) {
	var out bytes.Buffer
	cmd := New()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--help"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"Examples:", "--data-dir", "--gateway-name", "--logging-format"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the help does not show %q", part)
		}
	}
}

func TestWrongOptionsAreRefusedBeforeAnythingIsTouched(t *testing.T) {
	dir := t.TempDir() + "/data"
	cmd := New()
	cmd.SetArgs([]string{"--data-dir", dir, "--secure-port", "70000"})
	err := cmd.ExecuteContext(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--secure-port") {
		t.Fatalf("got %v, want an error that names --secure-port", err)
	}
}
