// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package view

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// Why says why a host is not up to date, most telling first, each with what to do where
// something can be done. It is empty for a host that is up to date and that no unfinished
// rollout still has to move. The rollouts are those of the host's namespace.
func Why(m Member, rollouts []nfv1.Rollout, now time.Time) []string {
	var reasons []string
	h := m.Host
	if !h.DeletionTimestamp.IsZero() {
		reasons = append(reasons, "the Host is being deleted: nothing is assigned to it any more")
	}
	if r := lifecycleReason(h); r != "" {
		reasons = append(reasons, r)
	}
	reasons = append(reasons, assignmentReasons(m, now)...)
	return append(reasons, waitingReasons(h, rollouts)...)
}

func lifecycleReason(h *nfv1.Host) string {
	switch h.Spec.Lifecycle {
	case nfv1.LifecycleActive, "":
		return ""
	case nfv1.LifecycleProvisioning:
		if h.Status.Phase != "" {
			return ""
		}
		return "it is Provisioning and has not reported yet: rollouts take it from its first report on"
	default:
		return fmt.Sprintf("its lifecycle is %s: rollouts pass it over", h.Spec.Lifecycle)
	}
}

// assignmentReasons compares what is asked with what was reported.
func assignmentReasons(m Member, now time.Time) []string {
	h, d := m.Host, m.Host.Spec.Desired
	if ok, _ := upToDate(h); ok {
		return nil
	}
	var reasons []string
	switch {
	case d == nil:
		reasons = append(reasons, "no rollout has assigned anything to it yet")
	case d.Intent == nfv1.IntentNone:
		reasons = append(reasons, "nothing is asked of it: its last assignment was dropped, and it stays on what it runs")
	case h.Status.ObservedRevision > d.Revision:
		reasons = append(reasons, fmt.Sprintf("it has seen revision %d, and revision %d is asked: the API was restored from an older backup; the next assignment passes it",
			h.Status.ObservedRevision, d.Revision))
	default:
		reasons = append(reasons, attemptReason(h, d, now))
	}
	if !isTrue(h, nfv1.ConditionOnline) && h.Spec.Lifecycle != nfv1.LifecyclePending && h.Spec.Lifecycle != nfv1.LifecycleDecommissioned {
		reasons = append(reasons, offlineReason(m, now))
	}
	return reasons
}

// attemptReason says how far the host is with its assignment.
func attemptReason(h *nfv1.Host, d *nfv1.Desired, now time.Time) string {
	a := h.Status.Attempt
	since := age(now.Sub(d.AssignedTime.Time))
	switch {
	case a == nil || a.Revision != d.Revision || a.StorePath != d.StorePath:
		return fmt.Sprintf("it was asked %s ago to run %s and has not reported a start", since, nameOf(d))
	case h.Status.Phase == nfv1.HostPhaseAwaitingReboot:
		return fmt.Sprintf("%s takes effect at its next boot: reboot the host, or set spec.activation.reboot: Automatic", nameOf(d))
	case a.Outcome == "":
		return fmt.Sprintf("it is moving to %s: %s, assigned %s ago", nameOf(d), cmp.Or(string(h.Status.Phase), unknown), since)
	case a.Outcome == nfv1.AttemptSucceeded:
		return fmt.Sprintf("it moved to %s and runs something else now%s", nameOf(d), detail(condition(h, nfv1.ConditionDrifted)))
	default:
		return fmt.Sprintf("%s %s: %s%s", outcomeVerb(a.Outcome), nameOf(d), cmp.Or(a.Reason, unknown), sentence(a.Message))
	}
}

func outcomeVerb(o nfv1.AttemptOutcome) string {
	switch o {
	case nfv1.AttemptRolledBack:
		return "it rolled back from"
	case nfv1.AttemptRefused:
		return "it refused"
	default:
		return "it failed to move to"
	}
}

func nameOf(d *nfv1.Desired) string {
	switch {
	case d.Intent == nfv1.IntentRevert:
		return "what it ran before (" + shortHash(string(d.StorePath)) + ")"
	case d.Release != nil:
		return fmt.Sprintf("release %s (%s)", d.Release.Name, shortHash(string(d.StorePath)))
	default:
		return shortHash(string(d.StorePath))
	}
}

func detail(c *metav1.Condition) string {
	if c == nil || c.Status != metav1.ConditionTrue {
		return ""
	}
	return sentence(c.Message)
}

func sentence(message string) string {
	if message == "" {
		return ""
	}
	return ": " + message
}

func offlineReason(m Member, now time.Time) string {
	if m.LastSeen.IsZero() {
		return "its agent has never been heard of: start it on the host, with the gateway's address and a key that spec.identity.publicKeys has"
	}
	return fmt.Sprintf("its agent was last heard of %s ago: it goes on when the host is back", age(now.Sub(m.LastSeen)))
}

// waitingReasons names the unfinished rollouts that select the host and have not
// assigned it. The oldest one is the host's holder.
func waitingReasons(h *nfv1.Host, rollouts []nfv1.Rollout) []string {
	var open []*nfv1.Rollout
	for i := range rollouts {
		if r := &rollouts[i]; r.Namespace == h.Namespace && !r.Status.Phase.Finished() && selects(r, h) {
			open = append(open, r)
		}
	}
	slices.SortFunc(open, func(a, b *nfv1.Rollout) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	var reasons []string
	for i, r := range open {
		if d := h.Spec.Desired; d != nil && d.Rollout != nil && d.Rollout.UID == r.UID {
			continue
		}
		phase := cmp.Or(string(r.Status.Phase), string(nfv1.RolloutPhasePending))
		text := fmt.Sprintf("rollout %s is to move it to release %s and has not assigned it yet: %s%s",
			r.Name, r.Spec.Release, phase, sentence(r.Status.Message))
		if i > 0 {
			text = fmt.Sprintf("rollout %s waits until rollout %s, which is older and unfinished, lets the host go", r.Name, open[0].Name)
		}
		reasons = append(reasons, text)
	}
	return reasons
}

// selects says whether a host is a target of a rollout. A selector that cannot be
// evaluated selects nothing here; the rollout's own status complains of it.
func selects(r *nfv1.Rollout, h *nfv1.Host) bool {
	selected, err := rollout.Selects(&r.Spec, h)
	return err == nil && selected
}
