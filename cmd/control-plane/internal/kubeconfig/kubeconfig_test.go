// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package kubeconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/pki"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ca.crt", "admin.crt", "admin.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "admin.kubeconfig")
	user := pki.Files{CertFile: filepath.Join(dir, "admin.crt"), KeyFile: filepath.Join(dir, "admin.key")}
	if err := os.WriteFile(path, []byte("an older one"), 0o644); err != nil {
		t.Fatal(err)
	}

	if err := Write(path, "https://127.0.0.1:6443", filepath.Join(dir, "ca.crt"), user); err != nil {
		t.Fatal(err)
	}

	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %o, want 600", info.Mode().Perm())
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://127.0.0.1:6443" {
		t.Errorf("server is %q", config.Host)
	}
	for got, want := range map[string]string{
		string(config.CAData): "content of ca.crt", string(config.CertData): "content of admin.crt", string(config.KeyData): "content of admin.key",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWriteWithoutCredentialsKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin.kubeconfig")
	if err := os.WriteFile(path, []byte("an older one"), 0o600); err != nil {
		t.Fatal(err)
	}

	err := Write(path, "https://127.0.0.1:6443", filepath.Join(dir, "missing.crt"), pki.Files{})

	if err == nil || !strings.Contains(err.Error(), "missing.crt") {
		t.Errorf("got %v, want an error that names missing.crt", err)
	}
	if data, _ := os.ReadFile(path); string(data) != "an older one" {
		t.Errorf("the file now holds %q", data)
	}
}
