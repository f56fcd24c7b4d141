// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/nixfleet/nixfleet/internal/version"
)

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--version"}, &out); err != nil {
		t.Fatal(err)
	}
	if want := "nixfleet-manager " + version.String() + "\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}

func TestHelpListsTheFlags(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, &out); !errors.Is(err, pflag.ErrHelp) {
		t.Fatalf("run = %v", err)
	}
	for _, flag := range []string{"--leader-elect", "--gateway-cert-dir", "--host-offline-after", "--kubeconfig", "--zap-log-level", "--version"} {
		if !strings.Contains(out.String(), flag) {
			t.Errorf("--help does not list %s", flag)
		}
	}
}

func TestBadInputIsRefusedEarly(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(garbage, []byte("{{{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		says string
	}{
		"an unknown flag":     {[]string{"--gateway"}, "unknown flag"},
		"an argument":         {[]string{"start"}, `unexpected argument "start"`},
		"a bad option":        {[]string{"--concurrency=0", "--gateway-bind-address=0"}, "--concurrency"},
		"no certificate":      {[]string{"--gateway-cert-dir=" + t.TempDir()}, "--gateway-cert-dir"},
		"a broken kubeconfig": {[]string{"--gateway-bind-address=0", "--kubeconfig=" + garbage}, "--kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), tt.args, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("run = %v, want an error with %q", err, tt.says)
			}
		})
	}
}
