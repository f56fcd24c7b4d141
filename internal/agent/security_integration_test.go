//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/nixtest"
)

// attack is an order that must come to nothing, whoever gave it.
type attack struct {
	path   nix.StorePath
	caches []string // none: the cache of the test

	outcome nfv1.AttemptOutcome
	reason  string
	part    string // of the message

	// brings: what Nix itself accepts lies in the store, where nothing leads to it.
	brings bool
}

func refused(path nix.StorePath, reason, part string) attack {
	return attack{path: path, outcome: nfv1.AttemptRefused, reason: reason, part: part}
}

func failed(path nix.StorePath, part string) attack {
	return attack{path: path, outcome: nfv1.AttemptFailed, reason: nfv1.ReasonFetchFailed, part: part}
}

// TestSecurity gives a host with a real store orders that a hijacked control plane, cache or
// user of the host could bring about. Each is refused and reported, and changes nothing.
func TestSecurity(t *testing.T) {
	h := newRealHost(t)
	attacks := map[string]attack{}
	for _, add := range []func(*realHost, map[string]attack){signatureAttacks, closureAttacks, tamperedCaches, hostileNames} {
		add(h, attacks)
	}
	revision := int64(0)
	for _, name := range slices.Sorted(maps.Keys(attacks)) {
		a := attacks[name]
		t.Log(name)
		revision++
		caches := a.caches
		if caches == nil {
			caches = []string{h.cache}
		}
		s := h.askFrom(revision, a.path, caches...)
		h.wantOutcome(s, a.outcome, a.reason, a.part)
		h.wantUntouched(name, a)
		if t.Failed() {
			t.Fatalf("%s: ended as %+v", name, s.Attempt)
		}
	}
	// It was nothing about the host: what is in order still goes.
	good := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "good"})
	h.w.PushSigned(h.key, good)
	h.wantOutcome(h.ask(revision+1, good), nfv1.AttemptSucceeded, nfv1.ReasonCompleted, "")
	h.wantRuns(good)
}

// word is a text as it can stand in the name of a store path.
func word(text string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' {
			return '-'
		}
		if r == '\'' {
			return -1
		}
		return r
	}, text)
}

// signatureAttacks are systems that no trusted key has signed.
func signatureAttacks(h *realHost, to map[string]attack) {
	build := func(version string) nix.StorePath {
		return h.w.BuildSystem(nixtest.Spec{Host: "h", Version: version})
	}
	unsigned, local, contents := build("unsigned"), build("local"), build("contents")
	byImpostor, byAnother, byInner := build("impostor"), build("another"), build("inner")
	h.w.PushSigned(h.w.ImpostorKey("fleet-1"), byImpostor)
	h.w.PushSigned(h.w.Key("other-1"), byAnother)
	h.w.PushSigned(h.w.Key("inner-1"), byInner)
	h.w.PushUnsigned(unsigned, local)
	h.w.CopyToHost(h.root, local)
	byContents := h.w.PushContentAddressed(contents)
	localContents := h.w.PushContentAddressed(build("local-contents"))
	h.w.CopyToHost(h.root, localContents)

	untrusted := func(path nix.StorePath, part string) attack {
		return refused(path, nfv1.ReasonUntrustedSignature, part)
	}
	to["unsigned"] = untrusted(unsigned, "not signed")
	to["unsigned, content-addressed"] = untrusted(byContents, "not signed")
	to["built by a local user"] = untrusted(local, "not signed")
	to["added by a local user, content-addressed"] = untrusted(localContents, "not signed")
	to["impostor of the key"] = untrusted(byImpostor, "not valid")
	to["wrong key"] = untrusted(byAnother, `signed by "other-1" only`)
	to["key for the rest of a closure only"] = untrusted(byInner, `signed by "inner-1" only`)
	for _, name := range []string{"built by a local user", "added by a local user, content-addressed"} {
		a := to[name]
		a.brings = true // it was there before
		to[name] = a
	}
}

// closureAttacks are systems that a trusted key has signed, and not for this host.
func closureAttacks(h *realHost, to map[string]attack) {
	add := func(name string, spec nixtest.Spec, reason, part string) {
		spec.Version = word(name)
		path := h.w.BuildSystem(spec)
		h.w.PushSigned(h.key, path)
		a := refused(path, reason, part)
		a.brings = true // it can be told only when it is there
		to[name] = a
	}
	add("another host's", nixtest.Spec{Host: "other"}, nfv1.ReasonWrongHost, `"other"`)
	add("a host with a longer name", nixtest.Spec{Host: "h1"}, nfv1.ReasonWrongHost, `"h1"`)
	add("another platform", nixtest.Spec{Host: "h", Platform: "aarch64-linux"}, nfv1.ReasonWrongHost, "aarch64-linux")
	add("nobody's", nixtest.Spec{Host: "h", NoHostIdentity: true}, nfv1.ReasonWrongHost, "cannot be read")
	add("no program to activate it", nixtest.Spec{Host: "h", NoSwitch: true}, nfv1.ReasonUnsupported, "switch-to-configuration")
}

// tamperedCaches serve something else than what was signed, each from a cache of its own.
func tamperedCaches(h *realHost, to map[string]attack) {
	serve := func(name, part string, tamper func(c *nixtest.Cache, path, inner nix.StorePath)) {
		path := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: word(name)})
		closure := h.w.Closure(path)
		inner := closure[slices.IndexFunc(closure, func(p nix.StorePath) bool {
			return strings.Contains(p.Name(), word(name)) && p != path
		})]
		c := h.w.NewCache()
		c.PushSigned(h.key, path)
		tamper(c, path, inner)
		a := failed(path, part)
		a.caches = []string{c.Serve()}
		to[name] = a
	}
	replace := func(field string) func(*nixtest.Cache, nix.StorePath, nix.StorePath) {
		return func(c *nixtest.Cache, path, _ nix.StorePath) {
			c.EditNarinfo(path, func(s string) string { return nixtest.DropLines(field+": ")(s) + field + ": \n" })
		}
	}
	serve("tampered NAR", "", func(c *nixtest.Cache, path, _ nix.StorePath) { c.TamperNAR(path) })
	serve("tampered NAR inside", "", func(c *nixtest.Cache, _, inner nix.StorePath) { c.TamperNAR(inner) })
	serve("unsigned inside", "is not signed", func(c *nixtest.Cache, _, inner nix.StorePath) { c.EditNarinfo(inner, nixtest.DropLines("Sig: ")) })
	serve("missing inside", "", func(c *nixtest.Cache, _, inner nix.StorePath) { c.Remove(inner) })
	serve("tampered references", "", replace("References"))
	serve("no name of the path", "", replace("StorePath"))
	a := to["tampered references"]
	a.outcome, a.reason, a.part = nfv1.AttemptRefused, nfv1.ReasonUntrustedSignature, "not valid"
	to["tampered references"] = a
}

// hostileNames are caches and store paths that are none.
func hostileNames(h *realHost, to map[string]attack) {
	unsigned := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "elsewhere"})
	h.w.PushUnsigned(unsigned)
	outside := h.t.TempDir()
	for name, url := range map[string]string{
		"trusted by its URL":     h.cache + "?trusted=1",
		"other settings":         h.cache + "?priority=1&want-mass-query=1",
		"escaped settings":       h.cache + "/%3ftrusted=1",
		"file":                   "file://" + outside,
		"local store":            "local?root=" + outside,
		"the daemon":             "daemon",
		"automatic":              "auto",
		"a directory":            outside,
		"ssh":                    "ssh://root@127.0.0.1",
		"ssh-ng":                 "ssh-ng://127.0.0.1",
		"S3":                     "s3://bucket",
		"with a password":        strings.Replace(h.cache, "http://", "http://user:secret@", 1),
		"with an option for Nix": h.cache + " --option require-sigs false",
	} {
		a := refused(unsigned, nfv1.ReasonFetchFailed, "not the URL of a binary cache")
		a.caches = []string{url}
		to["cache: "+name] = a
		a.caches = []string{h.cache, url}
		to["second cache: "+name] = a
	}
	for name, path := range map[string]string{
		"traversal":       unsigned.String() + "/../../../../" + outside,
		"dots":            "/nix/store/../../etc",
		"elsewhere":       "/etc/nixos",
		"inside a system": unsigned.String() + "/bin/switch-to-configuration",
		"a plan to build": "/nix/store/11111111111111111111111111111111-nixos-system-h.drv",
		"an option":       "--option",
		"two":             unsigned.String() + " " + h.old.String(),
		"a line break":    unsigned.String() + "\n",
		"short":           "/nix/store/x",
		"nothing":         "/nix/store/",
	} {
		to["path: "+name] = refused(nix.StorePath(path), nfv1.ReasonUnsupported, "")
	}
}

// wantUntouched looks at the disk: what runs, boots and was called, and whether anything
// leads to the system.
func (h *realHost) wantUntouched(name string, a attack) {
	h.t.Helper()
	h.wantRuns(h.old)
	if calls := h.switches(); len(calls) > 0 {
		h.t.Errorf("%s: something was activated: %v", name, calls)
	}
	if _, err := os.Stat(filepath.Join(h.root, "boot/default")); !os.IsNotExist(err) {
		h.t.Errorf("%s: there is a boot default: %v", name, err)
	}
	if _, err := nix.ParseStorePath(a.path.String()); err != nil {
		return // nothing can lead to it
	}
	valid, err := nix.NewStore(h.root, h.w.Options()...).Valid(h.t.Context(), a.path)
	if err != nil || valid && !a.brings {
		h.t.Errorf("%s: the store has it: %v, %v", name, valid, err)
	}
	// The next start of the agent finds a journal that it can read.
	j, err := NewJournalFile(h.machine.Base.StateDir, nil).Read()
	if err != nil || j.Open != nil || j.Good == a.path {
		h.t.Errorf("%s: journal %+v, %v", name, j, err)
	}
}
