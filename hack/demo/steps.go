// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// canary is the host with the label of the canary wave.
const canary = "web-01"

// laptop is the host that is offline for a while.
const laptop = "db-02"

func (d *demo) steps() []step {
	return []step{
		{"Hosts: name them, pin their keys, start their agents", d.stepHosts},
		{"a. Release a to all hosts", d.stepAll},
		{"b. Release b, one host first, then the rest", d.stepCanary},
		{"c. Release c, whose service does not answer", d.stepBroken},
		{"d. Release d, which nobody should run", d.stepUntrusted},
		{"d. Release d again, unchecked: the agents refuse it themselves", d.stepUnchecked},
		{"e. Release e, while a host is offline", d.stepOffline},
		{"f. Back to release b", d.stepRollback},
	}
}

func (d *demo) stepHosts() error {
	if err := d.apply("namespace.yaml", "hosts.yaml"); err != nil {
		return err
	}
	for _, h := range d.hosts {
		if err := d.startAgent(h); err != nil {
			return err
		}
	}
	err := d.awaitHosts("all hosts are online and have reported", d.names(), func(h *nfv1.Host) (bool, string) {
		online := meta.IsStatusConditionTrue(h.Status.Conditions, nfv1.ConditionOnline)
		return online && h.Status.Running != nil, fmt.Sprintf("online %t, running %+v", online, h.Status.Running)
	})
	if err != nil {
		return err
	}
	if err := d.status(); err != nil {
		return err
	}
	if d.keep {
		// Now, for those who want to kill something in the middle.
		if err := d.writeScripts(); err != nil {
			return err
		}
		d.showProcesses()
	}
	return d.expectRuns(installed, d.names()...)
}

// stepAll moves all hosts at once.
func (d *demo) stepAll() error {
	if err := d.apply("release-a.yaml", "rollout-a.yaml"); err != nil {
		return err
	}
	if err := d.wait(0, "to-a"); err != nil {
		return err
	}
	if err := d.expectRuns("a", d.names()...); err != nil {
		return err
	}
	if err := d.expectUpToDate("a", d.names()...); err != nil {
		return err
	}
	if err := d.expectCounts("to-a", nfv1.HostCounts{Total: 6, Assigned: 6, Succeeded: 6}); err != nil {
		return err
	}
	return d.status()
}

// stepCanary moves one host, and only when that went well the others.
func (d *demo) stepCanary() error {
	if err := d.apply("release-b.yaml", "rollout-b.yaml"); err != nil {
		return err
	}
	if err := d.wait(0, "to-b"); err != nil {
		return err
	}
	if err := d.expectRuns("b", d.names()...); err != nil {
		return err
	}
	if err := d.expectUpToDate("b", d.names()...); err != nil {
		return err
	}
	return d.expectCanaryFirst("to-b")
}

// expectCanaryFirst compares the times in the status: no host of the second wave was
// assigned before the first had finished.
func (d *demo) expectCanaryFirst(rollout string) error {
	r, err := d.getRollout(rollout)
	if err != nil {
		return err
	}
	if len(r.Status.Waves) != 2 {
		return fmt.Errorf("expected two waves of rollout %s; saw: %+v", rollout, r.Status.Waves)
	}
	first, second := r.Status.Waves[0], r.Status.Waves[1]
	if first.Size != 1 || second.Size != 5 || first.FinishedAt.IsZero() || second.StartedAt.Before(&first.FinishedAt) {
		return fmt.Errorf("expected a wave of 1 that finished before one of 5 started; saw: %+v and %+v", first, second)
	}
	hosts, err := d.getHosts()
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(hosts) {
		desired := hosts[name].Spec.Desired
		if desired.Wave == second.Name && desired.AssignedTime.Before(&first.FinishedAt) {
			return fmt.Errorf("expected %s to be assigned after %s, when the canary had finished; saw: %s", name, first.FinishedAt, desired.AssignedTime)
		}
	}
	d.ok("in the API, rollout %s: 1 host, then 5, and none of the 5 was assigned before the first had finished", rollout)
	return nil
}

// stepBroken rolls out a release whose health check fails: the canary returns by itself
// and nobody else is touched.
func (d *demo) stepBroken() error {
	before, err := d.snapshot()
	if err != nil {
		return err
	}
	if err := d.apply("release-c.yaml", "rollout-c.yaml"); err != nil {
		return err
	}
	if err := d.wait(4, "to-c"); err != nil {
		return err
	}
	if err := d.expectOutcome(canary, nfv1.AttemptRolledBack, nfv1.ReasonHealthCheckFailed); err != nil {
		return err
	}
	if err := d.expectRuns("b", d.names()...); err != nil {
		return err
	}
	err = d.expectActivations(canary, "test="+d.systems["c"][canary].String(), "test="+d.systems["b"][canary].String())
	if err != nil {
		return err
	}
	d.ok("on disk, %s: release c was activated, then release b again", canary)
	if err := d.expectUntouched(before, d.others(canary)...); err != nil {
		return err
	}
	if err := d.expectCounts("to-c", nfv1.HostCounts{Total: 6, Assigned: 1, Failed: 1, Unassigned: 5}); err != nil {
		return err
	}
	if err := d.status(canary); err != nil {
		return err
	}
	// A rollout that paused keeps its hosts until somebody decides.
	if err := d.cancel("to-c"); err != nil {
		return err
	}
	return d.awaitRollout("to-c", nfv1.RolloutPhaseCancelled)
}

// stepUntrusted asks for systems that cannot be verified: nothing happens.
func (d *demo) stepUntrusted() error {
	before, err := d.snapshot()
	if err != nil {
		return err
	}
	if err := d.apply("release-d.yaml", "rollout-d.yaml"); err != nil {
		return err
	}
	err = await(d, releaseKind(), "release d is not Verified, because of two systems", func(releases map[string]*nfv1.Release) (bool, string) {
		r, found := releases["d"]
		if !found {
			return false, "it does not exist"
		}
		c := meta.FindStatusCondition(r.Status.Conditions, nfv1.ConditionVerified)
		if c == nil || c.Status != metav1.ConditionFalse || c.Reason != nfv1.ReasonUntrustedSignature {
			return false, fmt.Sprintf("%+v", c)
		}
		return d.offendersAre(r, unsignedHost, contentAddressedHost), fmt.Sprintf("%+v", r.Status.Offenders)
	})
	if err != nil {
		return err
	}
	d.ok("in the API, release d: not Verified, because nobody signed the systems of %s and %s", unsignedHost, contentAddressedHost)
	if err := d.awaitRollout("to-d", nfv1.RolloutPhaseBlocked); err != nil {
		return err
	}
	if err := d.user(0, kubectlProgram, "get", "releases", "-n", fleetNamespace); err != nil {
		return err
	}
	if err := d.nixfleet(0, "rollout", "status", "to-d"); err != nil {
		return err
	}
	if err := d.expectCounts("to-d", nfv1.HostCounts{Total: 3, Unassigned: 3}); err != nil {
		return err
	}
	if err := d.expectUntouched(before, d.names()...); err != nil {
		return err
	}
	if err := d.cancel("to-d"); err != nil {
		return err
	}
	return d.awaitRollout("to-d", nfv1.RolloutPhaseCancelled)
}

// offendersAre says whether the systems of exactly these hosts are complained of.
func (d *demo) offendersAre(r *nfv1.Release, hosts ...string) bool {
	want := map[nfv1.StorePath]bool{}
	for _, h := range hosts {
		want[nfv1.StorePath(d.systems[r.Name][h])] = true
	}
	for _, o := range r.Status.Offenders {
		// The parts of a system that are its own are not signed either.
		if toplevel := d.isSystem(o.StorePath); toplevel && !want[o.StorePath] {
			return false
		}
		delete(want, o.StorePath)
	}
	return len(want) == 0
}

func (d *demo) isSystem(path nfv1.StorePath) bool {
	for _, hosts := range d.systems {
		for _, system := range hosts {
			if string(system) == string(path) {
				return true
			}
		}
	}
	return false
}

// stepUnchecked asks for the same systems with verification switched off.
func (d *demo) stepUnchecked() error {
	before, err := d.snapshot()
	if err != nil {
		return err
	}
	if err := d.apply("release-d-unchecked.yaml", "rollout-d-unchecked.yaml"); err != nil {
		return err
	}
	if err := d.wait(4, "to-d-unchecked"); err != nil {
		return err
	}
	for _, expected := range []struct {
		host, reason string
	}{
		{unsignedHost, nfv1.ReasonUntrustedSignature},
		{contentAddressedHost, nfv1.ReasonUntrustedSignature},
		{foreignReceiver, nfv1.ReasonWrongHost},
	} {
		if err := d.expectOutcome(expected.host, nfv1.AttemptRefused, expected.reason); err != nil {
			return err
		}
	}
	if err := d.expectCounts("to-d-unchecked", nfv1.HostCounts{Total: 3, Assigned: 3, Failed: 3}); err != nil {
		return err
	}
	if err := d.expectUntouched(before, d.names()...); err != nil {
		return err
	}
	if err := d.cancel("to-d-unchecked"); err != nil {
		return err
	}
	return d.awaitRollout("to-d-unchecked", nfv1.RolloutPhaseCancelled)
}

// stepOffline rolls out while a host is off; it follows when it is back.
func (d *demo) stepOffline() error {
	d.say("\n(%s is shut down)", laptop)
	if err := d.host(laptop).agent.stop(); err != nil {
		return err
	}
	err := d.awaitHosts(laptop+" counts as offline", []string{laptop}, func(h *nfv1.Host) (bool, string) {
		c := meta.FindStatusCondition(h.Status.Conditions, nfv1.ConditionOnline)
		return c != nil && c.Status == metav1.ConditionUnknown, fmt.Sprintf("%+v", c)
	})
	if err != nil {
		return err
	}
	if err := d.apply("release-e.yaml", "rollout-e.yaml"); err != nil {
		return err
	}
	if err := d.wait(0, "to-e"); err != nil {
		return err
	}
	online := d.others(laptop)
	if err := d.expectRuns("e", online...); err != nil {
		return err
	}
	if err := d.expectRuns("b", laptop); err != nil {
		return err
	}
	if err := d.expectCounts("to-e", nfv1.HostCounts{Total: 6, Assigned: 6, Succeeded: 5, Deferred: 1}); err != nil {
		return err
	}
	if err := d.status(laptop); err != nil {
		return err
	}
	d.say("\n(%s is started)", laptop)
	if err := d.start(d.host(laptop).agent); err != nil {
		return err
	}
	if err := d.expectUpToDate("e", d.names()...); err != nil {
		return err
	}
	if err := d.expectRuns("e", laptop); err != nil {
		return err
	}
	return d.status()
}

// stepRollback goes back to systems that ran before.
func (d *demo) stepRollback() error {
	if err := d.apply("release-f.yaml", "rollout-f.yaml"); err != nil {
		return err
	}
	if err := d.wait(0, "back-to-b"); err != nil {
		return err
	}
	if err := d.expectRuns("b", d.names()...); err != nil {
		return err
	}
	if err := d.expectUpToDate("back-to-b", d.names()...); err != nil {
		return err
	}
	return d.status()
}
