//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// The host's policy in every scenario, and the longest that anything may take before the
// test is given up. The latter is no promise: machines that run tests are slow.
const (
	confirmSeconds    = 15
	activationSeconds = 20
	patience          = 4 * time.Minute
)

func clientKey(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// start makes a host for a test and waits until it is online.
func start(t *testing.T, name string, number int) *host {
	t.Helper()
	h, err := theFleet.newHost(name, number)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.cutPower)
	h.await(t, "the host is online", func(o *nfv1.Host) (bool, string) {
		return meta.IsStatusConditionTrue(o.Status.Conditions, nfv1.ConditionOnline) && o.Status.Running != nil, fmt.Sprintf("conditions %v", o.Status.Conditions)
	})
	return h
}

// await waits until the Host is as it should be.
func (h *host) await(t *testing.T, what string, is func(*nfv1.Host) (bool, string)) *nfv1.Host {
	t.Helper()
	var object *nfv1.Host
	h.waitFor(t, what, func() (bool, string) {
		o, err := h.object()
		if err != nil {
			return false, err.Error()
		}
		object = o
		return is(o)
	})
	return object
}

// deploy builds a system and rolls it out to the host.
func (h *host) deploy(t *testing.T, s system) nix.StorePath {
	t.Helper()
	paths, err := h.fleet.build(s)
	if err != nil {
		t.Fatal(err)
	}
	name := h.name + "-" + s.Label
	release := &nfv1.Release{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: nfv1.ReleaseSpec{
			Caches: []nfv1.BinaryCache{{URL: nfv1.CacheURL(h.fleet.cacheURL()), PublicKeys: []nfv1.NixPublicKey{nfv1.NixPublicKey(h.fleet.key)}}},
			Hosts:  map[string]nfv1.StorePath{h.name: nfv1.StorePath(paths[0])},
		},
	}
	rollout := &nfv1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       nfv1.RolloutSpec{Release: name, Hosts: []nfv1.HostName{nfv1.HostName(h.name)}},
	}
	for _, object := range []client.Object{release, rollout} {
		if err := h.fleet.client.Create(h.fleet.ctx, object); err != nil {
			t.Fatal(err)
		}
	}
	// A rollout that paused would hold the host for ever.
	t.Cleanup(func() {
		if err := h.fleet.client.Delete(h.fleet.ctx, rollout); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
	return paths[0]
}

// ends waits for the outcome of the attempt at a system, and compares it.
func (h *host) ends(t *testing.T, path nix.StorePath, outcome nfv1.AttemptOutcome, reasons ...string) *nfv1.HostAttempt {
	t.Helper()
	o := h.await(t, fmt.Sprintf("the attempt at %s ends", path), func(o *nfv1.Host) (bool, string) {
		a := o.Status.Attempt
		return a != nil && string(a.StorePath) == path.String() && a.Outcome != "", fmt.Sprintf("phase %s, attempt %+v", o.Status.Phase, a)
	})
	a := o.Status.Attempt
	matches := len(reasons) == 0
	for _, r := range reasons {
		matches = matches || a.Reason == r
	}
	t.Logf("%s: %s, %s: %s (%s after its start)", h.name, a.Outcome, a.Reason, a.Message, a.FinishedAt.Sub(a.StartedAt.Time))
	if a.Outcome != outcome || !matches {
		t.Fatalf("%s: the attempt ended %s, %s: %s; want %s, %v\n%s", h.name, a.Outcome, a.Reason, a.Message, outcome, reasons, h.story())
	}
	return a
}

// is compares what runs, what the profile names and what the next boot brings, as seen
// from outside.
func (h *host) is(t *testing.T, want nix.StorePath) {
	t.Helper()
	failed := false
	for what, read := range map[string]func() (nix.StorePath, error){"runs": h.running, "has in its profile": h.profile, "boots next": h.bootDefault} {
		if got, err := read(); err != nil || got != want {
			t.Errorf("%s %s %s (%v), want %s", h.name, what, got, err, want)
			failed = true
		}
	}
	if failed {
		t.Fatal(h.story())
	}
}

// runsSoon waits until a system runs, and answers how long that took.
func (h *host) runsSoon(t *testing.T, want nix.StorePath) time.Duration {
	t.Helper()
	begin := time.Now()
	h.waitFor(t, fmt.Sprintf("it runs %s", want), func() (bool, string) {
		got, err := h.running()
		return got == want, fmt.Sprintf("%s, %v", got, err)
	})
	return time.Since(begin)
}

// waitFor waits until something is so on the host.
func (h *host) waitFor(t *testing.T, what string, is func() (bool, string)) {
	t.Helper()
	var last string
	err := wait.PollUntilContextTimeout(h.fleet.ctx, look, patience, true, func(context.Context) (bool, error) {
		ok, state := is()
		last = state
		return ok, nil
	})
	if err != nil {
		t.Fatalf("%s: expected that %s: %v; last: %s\n%s", h.name, what, err, last, h.story())
	}
}

// succeeds rolls a system out that works, and looks at everything.
func (h *host) succeeds(t *testing.T, s system) nix.StorePath {
	t.Helper()
	path := h.deploy(t, s)
	h.ends(t, path, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)
	h.is(t, path)
	return path
}

// goesBack rolls a system out that does not work, and looks at everything.
func (h *host) goesBack(t *testing.T, s system, from nix.StorePath, reasons ...string) {
	t.Helper()
	path := h.deploy(t, s)
	h.ends(t, path, nfv1.AttemptRolledBack, reasons...)
	h.is(t, from)
	h.healthy(t)
}

// healthy waits until the host says that it is well.
func (h *host) healthy(t *testing.T) {
	t.Helper()
	h.await(t, "the host is healthy", func(o *nfv1.Host) (bool, string) {
		return meta.IsStatusConditionTrue(o.Status.Conditions, nfv1.ConditionHealthy), fmt.Sprintf("conditions %v", o.Status.Conditions)
	})
}
