// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nixfleet/nixfleet/internal/identity"
)

const testKey = "k-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ="

// command runs the command line and returns what it printed.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := NewCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestConfigNamesEverythingThatIsWrong(t *testing.T) {
	_, err := parseConfig([]byte("server: http://a\nnamespace: A\nhostName: a b\nroot: here\nheartbeatSeconds: -1\nlogLevel: loud\nlogFormat: xml\n"+
		"platform: sparc\ntags: [\"\", a, a]\n"), func(*Config) {})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{
		"server must be an https URL", "caFile is required", `namespace "A"`, `hostName "a b"`, "root must be an absolute path",
		"heartbeatSeconds", "logLevel", "logFormat", "platform must be one", `tag ""`, `tag "a"`, "trustedPublicKeys",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not named in:\n%v", part, err)
		}
	}
	_, err = parseConfig([]byte("servr: https://a\n"), func(*Config) {})
	if err == nil || !strings.Contains(err.Error(), "servr") {
		t.Errorf("an unknown key: %v", err)
	}
	_, err = parseConfig([]byte("server: https://a\ncaFile: /c\nhostName: h\ntrustedPublicKeys: [\"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=\"]\n"), func(*Config) {})
	if err == nil || !strings.Contains(err.Error(), "substitutionKeys") {
		t.Errorf("the key of the public cache: %v", err)
	}
}

func TestFlagsOverrideTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	text := "server: https://a\ncaFile: /c\nhostName: h\nroot: " + dir + "\ntrustedPublicKeys: [\"" + testKey + "\"]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := command(t, "status", "--config", file, "--host-name", "other", "--namespace", "fleet", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var s localStatus
	if err := json.Unmarshal([]byte(got), &s); err != nil || s.Host != "fleet/other" {
		t.Errorf("got %q, %v", s.Host, err)
	}
	if _, err := command(t, "status", "--config", file, "--log-level", "loud"); err == nil || !strings.Contains(err.Error(), "loud") {
		t.Errorf("a bad flag: %v", err)
	}
	if _, err := command(t, "status", "--config", filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("no file: %v", err)
	}
}

func TestStatusShowsWhatWasDone(t *testing.T) {
	b := newBody(t)
	b.bad[newSystem] = true
	b.live(t, "boot-1")
	got, err := command(t, "status", "--config", "", "--server", "https://a", "--ca-file", "/c", "--host-name", "h",
		"--trusted-public-key", testKey, "--root", t.TempDir(), "--state-dir", b.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"Running:", "none", "RolledBack", "HealthCheckFailed", newSystem.Base(), "connection refused"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is not in:\n%s", part, got)
		}
	}
	if err := os.WriteFile(filepath.Join(b.dir, journalName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err = command(t, "status", "--config", "", "--server", "https://a", "--ca-file", "/c", "--host-name", "h",
		"--trusted-public-key", testKey, "--root", t.TempDir(), "--state-dir", b.dir)
	if err != nil || !strings.Contains(got, "the journal cannot be read") {
		t.Errorf("a journal that is cut off: %v\n%s", err, got)
	}
}

func TestIdentityAndCheck(t *testing.T) {
	dir := t.TempDir()
	g := newFakeGateway(t, order1())
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--config", "", "--server", g.URL, "--ca-file", ca, "--host-name", "h", "--namespace", "fleet",
		"--trusted-public-key", testKey, "--root", dir,
	}
	got, err := command(t, append([]string{"check"}, args...)...)
	if err == nil || !strings.Contains(got, "nixfleet-agent identity") {
		t.Errorf("without a key: %v\n%s", err, got)
	}
	got, err = command(t, append([]string{"identity"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(got, "\n")
	if _, err := identity.ParsePin(line); err != nil || !strings.Contains(got, "SHA256:") {
		t.Errorf("%v in:\n%s", err, got)
	}
	again, err := command(t, append([]string{"identity"}, args...)...)
	if err != nil || again != got {
		t.Errorf("another key at the second time: %v", err)
	}
	got, _ = command(t, append([]string{"check"}, args...)...)
	if !strings.Contains(got, "gateway        ok") {
		t.Errorf("check:\n%s", got)
	}
	g.update(func() { g.down = true })
	got, err = command(t, append([]string{"check"}, args...)...)
	if err == nil || !strings.Contains(got, "gateway        failed") || !strings.Contains(got, "not ready") {
		t.Errorf("while the gateway is down: %v\n%s", err, got)
	}
	got, err = command(t, "check", "--config", "")
	if err == nil || !strings.Contains(got, "configuration  failed") {
		t.Errorf("without a configuration: %v\n%s", err, got)
	}
}
