//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/nixtest"
)

// realHost is a host with a store, a profile and a running system of its own, and an
// agent on real parts but for the gateway.
type realHost struct {
	t       *testing.T
	w       *nixtest.World
	g       *fakeGateway
	root    string
	cache   string
	old     nix.StorePath
	key     nixtest.Key
	machine *Machine
}

func newRealHost(t *testing.T) *realHost {
	t.Helper()
	w := nixtest.New(t)
	h := &realHost{t: t, w: w, root: w.HostRoot(), key: w.Key("fleet-1"), cache: w.ServeCache()}
	h.old = w.BuildSystem(nixtest.Spec{Host: "h", Version: "old"})
	h.install(h.old)
	order := order1()
	order.Spec.Desired = nil
	h.g = newFakeGateway(t, order)
	h.start()
	return h
}

// install puts a system on the host as an installer does.
func (h *realHost) install(path nix.StorePath) {
	h.t.Helper()
	h.w.CopyToHost(h.root, path)
	profile := nix.NewProfile(h.root, h.w.Options()...)
	if err := profile.Set(h.t.Context(), path); err != nil {
		h.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(h.root, "run"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	for _, link := range []string{"current-system", "booted-system"} {
		if err := os.Symlink(path.String(), filepath.Join(h.root, "run", link)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *realHost) start() {
	h.t.Helper()
	c, err := parseConfig([]byte("server: "+h.g.URL+"\ncaFile: /none\nhostName: h\nnamespace: fleet\nplatform: x86_64-linux\nroot: "+h.root+
		"\nnixConfDir: "+h.w.ConfDir()+"\ntrustedPublicKeys: [\""+h.key.Public+"\"]\nsubstitutionKeys: [\""+h.w.Key("inner-1").Public+"\"]\n"), func(*Config) {})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(h.t.Output(), nil))
	if h.machine, err = newMachine(h.t.Context(), c, clock.RealClock{}, attempt.Agent{}, log); err != nil {
		h.t.Fatal(err)
	}
	source, ok := h.machine.Source.(*StoreSource)
	if !ok {
		h.t.Fatalf("the source is a %T", h.machine.Source)
	}
	source.Retry = wait.Backoff{Steps: 2, Duration: time.Millisecond}
	h.machine.Store = NewJournalFile(c.StateDir, time.Now)
	a := newAgent(h.machine, h.g.client(h.t), time.Minute, log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(h.t.Context())
	}()
	h.t.Cleanup(func() { <-done })
}

// ask gives an order and returns how it ended.
func (h *realHost) ask(revision int64, path nix.StorePath) nfv1.HostStatus {
	h.t.Helper()
	return h.askFrom(revision, path, h.cache)
}

// askFrom is ask with these caches.
func (h *realHost) askFrom(revision int64, path nix.StorePath, caches ...string) nfv1.HostStatus {
	h.t.Helper()
	h.g.update(func() {
		o := order1()
		o.Generation = revision + 2
		o.Spec.Activation.ActivationTimeoutSeconds = 3
		o.Spec.Desired.Revision, o.Spec.Desired.StorePath, o.Spec.Desired.Caches = revision, nfv1.StorePath(path), nil
		for _, c := range caches {
			o.Spec.Desired.Caches = append(o.Spec.Desired.Caches, nfv1.CacheURL(c))
		}
		o.Status = h.g.host.Status
		h.g.host = o
	})
	h.g.await(h.t, "the outcome", h.g.ended(revision))
	h.g.mu.Lock()
	defer h.g.mu.Unlock()
	return h.g.last()
}

// wantRuns looks at the disk: what runs and what the profile names.
func (h *realHost) wantRuns(path nix.StorePath) {
	h.t.Helper()
	running, err := os.Readlink(filepath.Join(h.root, "run/current-system"))
	if err != nil || running != path.String() {
		h.t.Errorf("%s runs, %v; want %s", running, err, path)
	}
	profile, _, err := nix.NewProfile(h.root, h.w.Options()...).Current(h.t.Context())
	if err != nil || profile != path {
		h.t.Errorf("the profile names %s, %v; want %s", profile, err, path)
	}
}

// switches are the calls of switch-to-configuration so far: "ACTION NAME".
func (h *realHost) switches() []string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.root, "run/switch.log"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	var calls []string
	for line := range strings.Lines(string(data)) {
		action, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		calls = append(calls, action+" "+nix.StorePath(path).Name())
	}
	return calls
}

func (h *realHost) wantOutcome(s nfv1.HostStatus, outcome nfv1.AttemptOutcome, reason, part string) {
	h.t.Helper()
	if a := s.Attempt; a.Outcome != outcome || a.Reason != reason || !strings.Contains(a.Message, part) {
		h.t.Errorf("ended as %s %s: %s; want %s %s with %q", a.Outcome, a.Reason, a.Message, outcome, reason, part)
	}
}

func TestRealMoveAndBack(t *testing.T) {
	h := newRealHost(t)
	checks := `{"checks":[{"name":"service","type":"exec","timeoutSeconds":2,"exec":{"argv":["@check@","--fast"]}}]}`
	good := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "good", HealthChecks: checks, Scripts: map[string]string{"check": `test "$1" = --fast`}})
	bad := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "bad", HealthChecks: checks, Scripts: map[string]string{"check": "echo the database is gone; exit 7"}})
	hangs := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "hangs", OnSwitch: "sleep 600"})
	fails := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "fails", OnSwitch: "echo unit nginx.service failed; exit 4"})
	cannotBoot := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "noboot", OnBoot: "echo /boot is full; exit 1"})
	h.w.PushSigned(h.key, good, bad, hangs, fails, cannotBoot)

	h.wantOutcome(h.ask(1, good), nfv1.AttemptSucceeded, nfv1.ReasonCompleted, "")
	h.wantRuns(good)
	if got := strings.Join(h.switches(), ", "); got != "test "+good.Name()+", boot "+good.Name() {
		t.Errorf("calls: %s", got)
	}
	h.wantOutcome(h.ask(2, bad), nfv1.AttemptRolledBack, nfv1.ReasonHealthCheckFailed, "the database is gone")
	h.wantRuns(good)
	h.wantOutcome(h.ask(3, hangs), nfv1.AttemptRolledBack, nfv1.ReasonActivationTimeout, "did not end in time")
	h.wantRuns(good)
	h.wantOutcome(h.ask(4, fails), nfv1.AttemptRolledBack, nfv1.ReasonActivationFailed, "unit nginx.service failed")
	h.wantRuns(good)
	h.wantOutcome(h.ask(5, cannotBoot), nfv1.AttemptRolledBack, nfv1.ReasonCommitFailed, "/boot is full")
	h.wantRuns(good)
	if boot, err := os.ReadFile(filepath.Join(h.root, "boot/default")); err != nil || string(boot) != good.String() {
		t.Errorf("the boot default is %s, %v", boot, err)
	}
	calls := len(h.switches())
	h.wantOutcome(h.ask(6, good), nfv1.AttemptSucceeded, nfv1.ReasonAlreadyRunning, "")
	if len(h.switches()) != calls {
		t.Errorf("activated again: %v", h.switches()[calls:])
	}
	h.w.CollectGarbage(h.root)
	h.wantOutcome(h.ask(7, h.old), nfv1.AttemptRefused, nfv1.ReasonUntrustedSignature, "")
	h.wantRuns(good)
}

// TestRealEmptyHost moves a host that has nothing, not even a store.
func TestRealEmptyHost(t *testing.T) {
	w := nixtest.New(t)
	h := &realHost{t: t, w: w, root: w.HostRoot(), key: w.Key("fleet-1"), cache: w.ServeCache()}
	first := w.BuildSystem(nixtest.Spec{Version: "first"})
	w.PushSigned(h.key, first)
	order := order1()
	order.Spec.Desired = nil
	h.g = newFakeGateway(t, order)
	h.start()
	h.wantOutcome(h.ask(1, first), nfv1.AttemptSucceeded, nfv1.ReasonCompleted, "any-first")
	h.wantRuns(first)
}

// TestRealCacheComesBack stops the cache and starts it again while the agent tries.
func TestRealCacheComesBack(t *testing.T) {
	h := newRealHost(t)
	path := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "new"})
	h.w.PushSigned(h.key, path)
	source, ok := h.machine.Source.(*StoreSource)
	if !ok {
		t.Fatalf("the source is a %T", h.machine.Source)
	}
	source.Retry = wait.Backoff{Steps: 1000, Duration: 20 * time.Millisecond}
	h.w.Cache().Stop()
	h.g.update(func() {
		o := order1()
		o.Spec.Desired.StorePath, o.Spec.Desired.Caches = nfv1.StorePath(path), []nfv1.CacheURL{nfv1.CacheURL(h.cache)}
		h.g.host = o
	})
	h.g.await(t, "that it is tried again", func() bool { return strings.Contains(everything(h.g.last()), "tried again") })
	if again := h.w.ServeCache(); again != h.cache {
		t.Fatalf("the cache moved to %s", again)
	}
	h.g.await(t, "the outcome", h.g.ended(1))
	h.wantRuns(path)
}
