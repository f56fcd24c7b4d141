// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package identity

import (
	"crypto"
	"crypto/dsa" //nolint:staticcheck // To see it refused.
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

func newEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newECDSA(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writeKey(t testing.TB, key crypto.PrivateKey, mode os.FileMode) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, pem.EncodeToMemory(block), mode)
}

func writeFile(t testing.TB, data []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadKeyReadsEveryKindOfKey(t *testing.T) {
	keys := map[string]crypto.Signer{
		"ed25519":    newEd25519(t),
		"ecdsa-p256": newECDSA(t, elliptic.P256()),
		"ecdsa-p384": newECDSA(t, elliptic.P384()),
		"ecdsa-p521": newECDSA(t, elliptic.P521()),
		"rsa":        newRSA(t, 2048),
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			got, err := LoadKey(writeKey(t, key, 0o600))
			if err != nil {
				t.Fatal(err)
			}
			if !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
				t.Errorf("LoadKey returned another key")
			}
		})
	}
}

func TestLoadKeyReadsPKCS8(t *testing.T) {
	key := newEd25519(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadKey(writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o400))
	if err != nil {
		t.Fatal(err)
	}
	if !key.Equal(got) {
		t.Errorf("LoadKey returned another key")
	}
}

func TestLoadKeyRefuses(t *testing.T) {
	encrypted, err := ssh.MarshalPrivateKeyWithPassphrase(newEd25519(t), "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	whole := pem.EncodeToMemory(encrypted)
	tests := map[string]struct {
		path string
		want string
	}{
		"readable by the group": {writeKey(t, newEd25519(t), 0o640), "chmod 600"},
		"readable by all":       {writeKey(t, newEd25519(t), 0o644), "chmod 600"},
		"empty":                 {writeFile(t, nil, 0o600), "not a usable private key"},
		"garbage":               {writeFile(t, []byte("\x00\x01garbage"), 0o600), "not a usable private key"},
		"truncated":             {writeFile(t, whole[:len(whole)/2], 0o600), "not a usable private key"},
		"a passphrase":          {writeFile(t, whole, 0o600), "ssh-keygen -p"},
		"a short RSA key":       {writeKey(t, newRSA(t, 1024), 0o600), "1024 bits"},
		"too large":             {writeFile(t, make([]byte, maxKeyFile+1), 0o600), "larger than"},
		"a directory":           {t.TempDir(), "not a regular file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			key, err := LoadKey(tt.path)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("LoadKey = %v, %v; want an error with %q", key, err, tt.want)
			}
			if !strings.Contains(err.Error(), tt.path) {
				t.Errorf("error %q does not name the file", err)
			}
		})
	}
	t.Run("insecure is a typed error", func(t *testing.T) {
		if _, err := LoadKey(writeKey(t, newEd25519(t), 0o604)); !errors.Is(err, ErrInsecureFile) {
			t.Errorf("error = %v, want ErrInsecureFile", err)
		}
	})
}

func TestLoadOrCreateKeyMakesOneAndKeepsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "host.key")
	first, err := LoadOrCreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := first.(ed25519.PrivateKey); !ok {
		t.Errorf("made a %T, want ed25519", first)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %o, want 600", info.Mode().Perm())
	}
	again, err := LoadOrCreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if !first.(ed25519.PrivateKey).Equal(again) {
		t.Errorf("the second call returned another key")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("left %d files behind, want the key alone", len(entries))
	}
}

func TestLoadOrCreateKeyNeverReplacesAFile(t *testing.T) {
	path := writeFile(t, []byte("precious"), 0o600)
	if _, err := LoadOrCreateKey(path); err == nil {
		t.Fatal("a file that is not a key was accepted")
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "precious" {
		t.Errorf("the file was overwritten: %q", got)
	}
}

func TestLoadOrCreateKeyNamesAStateDirectoryThatIsMissing(t *testing.T) {
	parent := writeFile(t, nil, 0o600)
	if _, err := LoadOrCreateKey(filepath.Join(parent, "host.key")); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v, want one about the directory", err)
	}
}

func TestLoadOrCreateKeyRacesToOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.key")
	const processes = 16
	keys := make([]crypto.Signer, processes)
	errs := make([]error, processes)
	var group sync.WaitGroup
	for i := range processes {
		group.Go(func() { keys[i], errs[i] = LoadOrCreateKey(path) })
	}
	group.Wait()
	for i := range processes {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if !keys[0].(ed25519.PrivateKey).Equal(keys[i]) {
			t.Fatal("two callers have different keys")
		}
	}
}

func TestPinOfRefusesDSA(t *testing.T) {
	if _, err := PinOf(&dsa.PublicKey{}); err == nil {
		t.Error("a DSA key was accepted")
	}
}
