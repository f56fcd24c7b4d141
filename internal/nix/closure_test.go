// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fakeStore is a directory tree in the place of a store; links are written as given.
type fakeStore struct {
	t    *testing.T
	root string
}

func newFakeStore(t *testing.T) fakeStore {
	t.Helper()
	s := fakeStore{t: t, root: filepath.Join(t.TempDir(), "host")}
	s.file("/etc/secret", "outside the store")
	return s
}

func (s fakeStore) file(logical, text string) {
	s.t.Helper()
	name := filepath.Join(s.root, logical)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s fakeStore) link(logical, target string) {
	s.t.Helper()
	name := filepath.Join(s.root, logical)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		s.t.Fatal(err)
	}
}

const etcPath = "/nix/store/7gx4kiv5m0i7d7qkixq2cwzbr10lvxwc-etc"

func TestHostIdentity(t *testing.T) {
	valid := `{"name":"web-01","platform":"x86_64-linux","added":"later"}`
	cases := []struct {
		name    string
		prepare func(s fakeStore)
		want    HostIdentity
		err     string
	}{
		{"plain file", func(s fakeStore) { s.file(testPath+"/etc/nixfleet/host.json", valid) }, HostIdentity{"web-01", "x86_64-linux"}, ""},
		{"through links into the store", func(s fakeStore) {
			s.file(etcPath+"/real.json", valid)
			s.link(etcPath+"/nixfleet/host.json", "../real.json")
			s.link(testPath+"/etc", etcPath)
		}, HostIdentity{"web-01", "x86_64-linux"}, ""},
		{"missing", func(s fakeStore) { s.file(testPath+"/nixos-version", "x") }, HostIdentity{}, "no such file"},
		{"link out of the store", func(s fakeStore) { s.link(testPath+"/etc/nixfleet/host.json", "/etc/secret") }, HostIdentity{}, "outside the store"},
		{"relative link out of the store", func(s fakeStore) {
			s.link(testPath+"/etc/nixfleet/host.json", "../../../../../etc/secret")
		}, HostIdentity{}, "outside the store"},
		{"relative link out of the root", func(s fakeStore) {
			// Going up from the root of a host stays there, as on any machine.
			s.link(testPath+"/etc/nixfleet/host.json", strings.Repeat("../", 60)+"etc/secret")
		}, HostIdentity{}, "outside the store"},
		{"directory that leads out", func(s fakeStore) { s.link(testPath+"/etc", "/etc") }, HostIdentity{}, "no such file"},
		{"loop", func(s fakeStore) {
			s.link(testPath+"/etc", etcPath)
			s.link(etcPath, testPath+"/etc")
		}, HostIdentity{}, "more than 40 symbolic links"},
		{"directory", func(s fakeStore) { s.file(testPath+"/etc/nixfleet/host.json/x", valid) }, HostIdentity{}, "not a regular file"},
		{"pipe", func(s fakeStore) {
			s.file(testPath+"/etc/nixfleet/x", "")
			if err := syscall.Mkfifo(filepath.Join(s.root, testPath, "etc/nixfleet/host.json"), 0o644); err != nil {
				s.t.Fatal(err)
			}
		}, HostIdentity{}, "not a regular file"},
		{"no name", func(s fakeStore) { s.file(testPath+"/etc/nixfleet/host.json", `{"platform":"x86_64-linux"}`) }, HostIdentity{}, "name and platform"},
		{"not JSON", func(s fakeStore) { s.file(testPath+"/etc/nixfleet/host.json", `web-01`) }, HostIdentity{}, "host.json of"},
		{"two objects", func(s fakeStore) { s.file(testPath+"/etc/nixfleet/host.json", valid+valid) }, HostIdentity{}, "behind the object"},
		{"endless", func(s fakeStore) {
			s.file(testPath+"/etc/nixfleet/host.json", valid+strings.Repeat(" ", maxJSONFile))
		}, HostIdentity{}, "more than"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := newFakeStore(t)
			tc.prepare(s)
			got, err := OpenClosure(s.root, testPath).HostIdentity()
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %+v, %v; want %+v, %q", got, err, tc.want, tc.err)
			}
			if tc.err == "outside the store" && !errors.Is(err, ErrOutsideStore) {
				t.Errorf("error %v is not ErrOutsideStore", err)
			}
			if tc.name == "missing" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("error %v is not fs.ErrNotExist", err)
			}
		})
	}
}

func TestHostIdentityFits(t *testing.T) {
	cases := []struct {
		identity       HostIdentity
		name, platform string
		want           bool
	}{
		{HostIdentity{"web-01", "x86_64-linux"}, "web-01", "x86_64-linux", true},
		{HostIdentity{"*", "x86_64-linux"}, "web-01", "x86_64-linux", true},
		{HostIdentity{"web-01", "aarch64-linux"}, "web-01", "x86_64-linux", false},
		{HostIdentity{"*", "aarch64-linux"}, "web-01", "x86_64-linux", false},
		{HostIdentity{"web-0", "x86_64-linux"}, "web-01", "x86_64-linux", false},
		{HostIdentity{"web-011", "x86_64-linux"}, "web-01", "x86_64-linux", false},
		{HostIdentity{"web-*", "x86_64-linux"}, "web-01", "x86_64-linux", false},
		{HostIdentity{}, "", "", false},
	}
	for _, tc := range cases {
		if got := tc.identity.Fits(tc.name, tc.platform); got != tc.want {
			t.Errorf("%+v.Fits(%q, %q) = %v", tc.identity, tc.name, tc.platform, got)
		}
	}
}

func TestClosureWords(t *testing.T) {
	s := newFakeStore(t)
	s.file(testPath+"/nixos-version", "26.05\n")
	s.file(testPath+"/system", "x86\x00_64-linux")
	c := OpenClosure(s.root, testPath)
	if got, err := c.Label(); got != "26.05" || err != nil {
		t.Errorf("Label: %q, %v", got, err)
	}
	if got, err := c.InitInterfaceVersion(); got != "" || err != nil {
		t.Errorf("InitInterfaceVersion without the file: %q, %v", got, err)
	}
	if got, err := c.Platform(); got != "" || err == nil {
		t.Errorf("Platform with a control character: %q, %v", got, err)
	}
	if got, err := c.HealthChecks(); got != nil || err != nil {
		t.Errorf("HealthChecks without the file: %q, %v", got, err)
	}
}

func TestHasSwitchToConfiguration(t *testing.T) {
	s := newFakeStore(t)
	s.file(testPath+"/nixos-version", "26.05")
	c := OpenClosure(s.root, testPath)
	check := func(what string, want bool) {
		t.Helper()
		if got, err := c.HasSwitchToConfiguration(); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", what, got, err, want)
		}
	}
	check("missing", false)
	s.file(testPath+"/bin/switch-to-configuration", "#!/bin/sh\n")
	check("not executable", false)
	if err := os.Chmod(c.SwitchProgram(), 0o555); err != nil {
		t.Fatal(err)
	}
	check("executable", true)
}

func TestOpenClosureWithoutRoot(t *testing.T) {
	c := OpenClosure(filepath.Join(t.TempDir(), "none"), testPath)
	if _, err := c.Label(); !errors.Is(err, ErrNotValid) {
		t.Errorf("label below a root that does not exist: %v", err)
	}
	c = OpenClosure(t.TempDir(), testPath)
	if _, err := c.HasSwitchToConfiguration(); !errors.Is(err, ErrNotValid) {
		t.Errorf("program of a closure that does not exist: %v", err)
	}
}
