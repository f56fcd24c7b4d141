// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// What is expected here is looked up from outside: on the hosts' disks and in the API.

// same fails unless want was seen.
func same[T comparable](what string, want, saw T) error {
	if want != saw {
		return fmt.Errorf("expected %s: %v; saw: %v", what, want, saw)
	}
	return nil
}

// ok prints what holds.
func (d *demo) ok(format string, args ...any) { d.say("  ok  "+format, args...) }

// expectRuns looks at the disks of hosts: what runs and what would be booted is the system
// of that release, and the last activation was of it.
func (d *demo) expectRuns(release string, names ...string) error {
	var errs []error
	for _, name := range names {
		h, want := d.host(name), d.systems[release][name]
		running, err := h.running()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		profile, _, err := h.profile()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		errs = append(errs,
			same(name+"'s /run/current-system", want, running),
			same(name+"'s system profile", want, profile))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.ok("on disk, %s: /run/current-system and the profile are the system of %s", list(names), describe(release))
	return nil
}

func describe(release string) string {
	if release == installed {
		return "the installation"
	}
	return "release " + release
}

func list(names []string) string { return strings.Join(names, ", ") }

// expectUpToDate looks at the API: each host reports to be healthy and up to date on that
// release, and has ended its attempt well.
func (d *demo) expectUpToDate(release string, names ...string) error {
	err := d.awaitHosts(fmt.Sprintf("%s healthy and up to date on release %s", list(names), release), names, func(h *nfv1.Host) (bool, string) {
		if h.Spec.Desired == nil || h.Spec.Desired.Release == nil || h.Spec.Desired.Release.Name != release {
			return false, "it is not assigned to it"
		}
		want := string(d.systems[release][h.Name])
		if h.Status.Running == nil || string(h.Status.Running.StorePath) != want {
			return false, fmt.Sprintf("it reports to run %+v", h.Status.Running)
		}
		for _, kind := range []string{nfv1.ConditionUpToDate, nfv1.ConditionHealthy, nfv1.ConditionReady, nfv1.ConditionOnline} {
			if !meta.IsStatusConditionTrue(h.Status.Conditions, kind) {
				return false, fmt.Sprintf("condition %s: %+v", kind, meta.FindStatusCondition(h.Status.Conditions, kind))
			}
		}
		a := h.Status.Attempt
		return a != nil && a.Outcome == nfv1.AttemptSucceeded && a.Revision == h.Spec.Desired.Revision, fmt.Sprintf("its attempt is %+v", a)
	})
	if err == nil {
		d.ok("in the API, %s: up to date on release %s, healthy, online", list(names), release)
	}
	return err
}

// snapshot is what can be seen of hosts from outside.
type snapshot map[string]string

// snapshot takes one of all hosts: what they run, their profile and every activation so far.
func (d *demo) snapshot() (snapshot, error) {
	s := snapshot{}
	for _, h := range d.hosts {
		running, err := h.running()
		if err != nil {
			return nil, err
		}
		profile, generation, err := h.profile()
		if err != nil {
			return nil, err
		}
		activations, err := h.activations()
		if err != nil {
			return nil, err
		}
		s[h.name] = fmt.Sprintf("runs %s, %s is %s, activations: %s", running, generation, profile, strings.Join(activations, ", "))
	}
	return s, nil
}

// expectUntouched compares hosts with a snapshot.
func (d *demo) expectUntouched(before snapshot, names ...string) error {
	after, err := d.snapshot()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := same(name+" untouched", before[name], after[name]); err != nil {
			return err
		}
	}
	d.ok("on disk, %s: untouched, no activation, same profile generation", list(names))
	return nil
}

// expectActivations looks at the last calls of switch-to-configuration on a host.
func (d *demo) expectActivations(name string, want ...string) error {
	activations, err := d.host(name).activations()
	if err != nil {
		return err
	}
	last := activations[max(len(activations)-len(want), 0):]
	if !slices.Equal(want, last) {
		return fmt.Errorf("expected %s to have been activated last: %s; saw: %s", name, strings.Join(want, ", "), strings.Join(activations, ", "))
	}
	return nil
}

// expectOutcome looks at the last attempt that a host reports.
func (d *demo) expectOutcome(name string, outcome nfv1.AttemptOutcome, reasons ...string) error {
	expected := fmt.Sprintf("%s reports %s, reason %s", name, outcome, strings.Join(reasons, " or "))
	var message string
	err := d.awaitHosts(expected, []string{name}, func(h *nfv1.Host) (bool, string) {
		a := h.Status.Attempt
		if a == nil || h.Spec.Desired == nil || a.Revision != h.Spec.Desired.Revision {
			return false, fmt.Sprintf("no attempt of the last revision: %+v", a)
		}
		message = a.Message
		return a.Outcome == outcome && slices.Contains(reasons, a.Reason), fmt.Sprintf("%s, reason %s: %s", a.Outcome, a.Reason, a.Message)
	})
	if err == nil {
		d.ok("in the API, %s: %s", expected, message)
	}
	return err
}

// expectCounts looks at the counts of a rollout. A rollout that paused still counts the
// hosts that were on their way.
func (d *demo) expectCounts(rollout string, want nfv1.HostCounts) error {
	expected := fmt.Sprintf("rollout %s counts %d targets, %d assigned, %d succeeded, %d failed, %d deferred, %d unassigned", rollout,
		want.Total, want.Assigned, want.Succeeded, want.Failed, want.Deferred, want.Unassigned)
	err := await(d, rolloutKind(), expected, func(rollouts map[string]*nfv1.Rollout) (bool, string) {
		r, found := rollouts[rollout]
		if !found || r.Status.Hosts == nil {
			return false, "no counts"
		}
		return *r.Status.Hosts == want, fmt.Sprintf("%+v", *r.Status.Hosts)
	})
	if err == nil {
		d.ok("in the API, %s", expected)
	}
	return err
}
