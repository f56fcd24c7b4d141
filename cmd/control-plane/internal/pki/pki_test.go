// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func configAt(dir string, now time.Time) Config {
	return Config{
		Dir:          dir,
		APIHosts:     []string{"localhost", "127.0.0.1", "::1"},
		GatewayHosts: []string{"127.0.0.1", "fleet.example.com"},
		Now:          func() time.Time { return now },
		Log:          logr.Discard(),
	}
}

func mustEnsure(t *testing.T, cfg Config) *Bundle {
	t.Helper()
	b, err := Ensure(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// contents maps each file of dir to what is in it.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, pattern := range []string{"*.*", "*/*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[strings.TrimPrefix(name, dir+"/")] = string(data)
		}
	}
	return files
}

// changed names the files that differ.
func changed(before, after map[string]string) []string {
	var names []string
	for _, name := range []string{
		"admin.crt", "admin.key", "apiserver.crt", "apiserver.key", "ca.crt", "ca.key", "gateway-ca.crt", "gateway-ca.key",
		"gateway/tls.crt", "gateway/tls.key", "manager.crt", "manager.key", "service-account.key",
	} {
		if before[name] != after[name] {
			names = append(names, name)
		}
	}
	return names
}

func TestEnsureMakesKeysPrivate(t *testing.T) {
	dir := t.TempDir()
	mustEnsure(t, configAt(dir, start))

	keys := 0
	for name := range contents(t, dir) {
		if filepath.Ext(name) != ".key" {
			continue
		}
		keys++
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", name, info.Mode().Perm())
		}
	}
	if keys != 7 {
		t.Errorf("there are %d keys, want 7", keys)
	}
}

func TestEnsureAgain(t *testing.T) {
	allLeaves := []string{
		"admin.crt", "admin.key", "apiserver.crt", "apiserver.key",
		"gateway/tls.crt", "gateway/tls.key", "manager.crt", "manager.key",
	}
	day := 24 * time.Hour
	tests := map[string]struct {
		after  time.Duration
		change func(*Config)
		damage func(t *testing.T, dir string)
		want   []string
	}{
		"at once":                       {},
		"31 days before the leaves end": {after: 365*day - 31*day},
		"29 days before the leaves end": {after: 365*day - 29*day, want: allLeaves},
		"after the leaves ended":        {after: 400 * day, want: allLeaves},
		"29 days before the authorities end": {
			after: 3650*day - 29*day,
			// The authorities keep their keys.
			want: append([]string{"admin.crt", "admin.key", "apiserver.crt", "apiserver.key", "ca.crt", "gateway-ca.crt"},
				"gateway/tls.crt", "gateway/tls.key", "manager.crt", "manager.key"),
		},
		"another name of the gateway": {
			change: func(c *Config) { c.GatewayHosts = append(c.GatewayHosts, "other.example.com") },
			want:   []string{"gateway/tls.crt", "gateway/tls.key"},
		},
		"the same names in another order and form": {
			change: func(c *Config) { c.APIHosts = []string{"0:0:0:0:0:0:0:1", "127.0.0.1", "localhost", "localhost"} },
		},
		"a leaf's certificate is gone": {
			damage: func(t *testing.T, dir string) { remove(t, dir, "manager.crt") },
			want:   []string{"manager.crt", "manager.key"},
		},
		"a leaf's key is gone": {
			damage: func(t *testing.T, dir string) { remove(t, dir, "admin.key") },
			want:   []string{"admin.crt", "admin.key"},
		},
		"a leaf has another's key": {
			damage: func(t *testing.T, dir string) { copyFile(t, dir, "admin.key", "manager.key") },
			want:   []string{"manager.crt", "manager.key"},
		},
		"the first start ended between key and certificate": {
			damage: func(t *testing.T, dir string) { remove(t, dir, "gateway-ca.crt") },
			want:   []string{"gateway-ca.crt"},
		},
		"a leaf of another authority": {
			damage: func(t *testing.T, dir string) {
				copyFile(t, dir, "gateway/tls.crt", "apiserver.crt")
				copyFile(t, dir, "gateway/tls.key", "apiserver.key")
			},
			want: []string{"apiserver.crt", "apiserver.key"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mustEnsure(t, configAt(dir, start))
			before := contents(t, dir)
			if tc.damage != nil {
				tc.damage(t, dir)
			}
			cfg := configAt(dir, start.Add(tc.after))
			if tc.change != nil {
				tc.change(&cfg)
			}

			bundle := mustEnsure(t, cfg)

			if diff := cmp.Diff(tc.want, changed(before, contents(t, dir))); diff != "" {
				t.Errorf("changed files (-want +got):\n%s", diff)
			}
			verify(t, bundle, cfg.Now())
		})
	}
}

// verify checks what a client of each certificate would check.
func verify(t *testing.T, b *Bundle, now time.Time) {
	t.Helper()
	for _, check := range []struct {
		files, ca Files
		dnsName   string
		usage     x509.ExtKeyUsage
	}{
		{b.APIServer, b.CA, "127.0.0.1", x509.ExtKeyUsageServerAuth},
		{b.Gateway, b.GatewayCA, "fleet.example.com", x509.ExtKeyUsageServerAuth},
		{b.Admin, b.CA, "", x509.ExtKeyUsageClientAuth},
		{b.Manager, b.CA, "", x509.ExtKeyUsageClientAuth},
	} {
		pair, err := tls.LoadX509KeyPair(check.files.CertFile, check.files.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		pem, err := os.ReadFile(check.ca.CertFile)
		if err != nil {
			t.Fatal(err)
		}
		roots.AppendCertsFromPEM(pem)
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{
			Roots: roots, DNSName: check.dnsName, CurrentTime: now.Add(renewBefore - time.Minute), KeyUsages: []x509.ExtKeyUsage{check.usage},
		}); err != nil {
			t.Errorf("%s: %v", check.files.CertFile, err)
		}
	}
}

func TestManagerCertificateIsItsServiceAccount(t *testing.T) {
	b := mustEnsure(t, configAt(t.TempDir(), start))
	cert, err := readCertificate(b.Manager.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "system:serviceaccount:nixfleet-system:nixfleet-manager" {
		t.Errorf("user is %q", cert.Subject.CommonName)
	}
	want := []string{"system:serviceaccounts", "system:serviceaccounts:nixfleet-system"}
	if diff := cmp.Diff(want, cert.Subject.Organization); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
}

// A host that has only the first gateway-ca must accept the gateway for as
// long as that certificate itself is valid.
func TestRenewedAuthorityIsTrustedByHoldersOfTheOldOne(t *testing.T) {
	dir := t.TempDir()
	b := mustEnsure(t, configAt(dir, start))
	old, err := readCertificate(b.GatewayCA.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	later := old.NotAfter.Add(-renewBefore / 2)
	mustEnsure(t, configAt(dir, later))

	gateway, err := readCertificate(b.Gateway.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(old)
	if _, err := gateway.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: later}); err != nil {
		t.Error(err)
	}
}

func TestEnsureRefusesWhatItWouldHaveToDestroy(t *testing.T) {
	tests := map[string]struct {
		damage func(t *testing.T, dir string)
		want   string
	}{
		"certificate is garbage": {
			damage: func(t *testing.T, dir string) { write(t, dir, "ca.crt", "garbage", 0o644) },
			want:   "ca.crt cannot be read",
		},
		"leaf certificate is garbage": {
			damage: func(t *testing.T, dir string) { write(t, dir, "admin.crt", "garbage", 0o644) },
			want:   "admin.crt cannot be read",
		},
		"key is garbage": {
			damage: func(t *testing.T, dir string) { write(t, dir, "gateway-ca.key", "garbage", 0o600) },
			want:   "gateway-ca.key cannot be read",
		},
		"authority's key is gone": {
			damage: func(t *testing.T, dir string) { remove(t, dir, "ca.key") },
			want:   "its key",
		},
		"authority's key is another's": {
			damage: func(t *testing.T, dir string) { copyFile(t, dir, "gateway-ca.key", "ca.key") },
			want:   "does not belong to the key",
		},
		"key is open to others": {
			damage: func(t *testing.T, dir string) {
				if err := os.Chmod(filepath.Join(dir, "service-account.key"), 0o640); err != nil {
					t.Fatal(err)
				}
			},
			want: "chmod 600",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mustEnsure(t, configAt(dir, start))
			tc.damage(t, dir)
			before := contents(t, dir)

			_, err := Ensure(configAt(dir, start))

			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
			if names := changed(before, contents(t, dir)); names != nil {
				t.Errorf("files were changed: %v", names)
			}
		})
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, data string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(data), mode); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, dir, from, to string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, from))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(data, []byte(contents(t, dir)[to])) {
		t.Fatalf("%s and %s are the same already", from, to)
	}
	write(t, dir, to, string(data), 0o600)
}
