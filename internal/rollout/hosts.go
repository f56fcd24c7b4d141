// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// hostView is what the planner knows of one host, seen from one rollout.
type hostView struct {
	host *nfv1.Host

	// order is the host's place among others of its rank, known once it was sorted.
	order [sha256.Size]byte

	// target says that the rollout selects the host; skip says why it cannot move it
	// nevertheless, or is empty.
	target bool
	skip   string

	online  bool
	healthy bool
	path    nfv1.StorePath

	// mine says that the current assignment is this rollout's; the following fields
	// are about that assignment and zero otherwise.
	mine     bool
	intent   nfv1.Intent
	wave     string
	outcome  nfv1.AttemptOutcome
	started  bool
	deadline time.Time

	// settled says that the wave of the host has soaked: its health is not the rollout's
	// affair any more. awaitsReboot that it waits for somebody to reboot it.
	settled      bool
	awaitsReboot bool

	// failReason says that the assignment failed; failMessage has the details.
	failReason  string
	failMessage string

	// retry says that the assignment failed in an earlier attempt of the rollout: the
	// host is to be assigned again.
	retry bool
}

func newHostView(r *nfv1.Rollout, rel *nfv1.Release, h *nfv1.Host, target bool, reachable metav1.Time) *hostView {
	v := &hostView{
		host:    h,
		target:  target,
		online:  isOnline(h),
		healthy: meta.IsStatusConditionTrue(h.Status.Conditions, nfv1.ConditionHealthy),
	}
	if rel != nil {
		v.path = rel.Spec.Hosts[h.Name]
	}
	v.skip = skipReason(h, rel, v.path)
	d := h.Spec.Desired
	if d == nil || d.Rollout == nil || d.Rollout.UID != r.UID {
		return v
	}
	v.mine, v.intent, v.wave = true, d.Intent, d.Wave
	v.started = h.Status.ObservedRevision >= d.Revision
	v.outcome = matchingOutcome(h)
	v.awaitsReboot = v.online && v.started && h.Status.Phase == nfv1.HostPhaseAwaitingReboot
	v.deadline = deadline(h, time.Duration(r.Spec.HostTimeoutSeconds)*time.Second, reachable.Time)
	return v
}

// isOnline reports whether the host controller hears the agent. Anything but an
// explicit yes is a no.
func isOnline(h *nfv1.Host) bool {
	return meta.IsStatusConditionTrue(h.Status.Conditions, nfv1.ConditionOnline)
}

func skipReason(h *nfv1.Host, rel *nfv1.Release, path nfv1.StorePath) string {
	switch {
	case !h.DeletionTimestamp.IsZero():
		return ReasonDeleting
	case !takesPart(h):
		return ReasonLifecycle
	case rel != nil && path == "":
		return ReasonClosureMissing
	default:
		return ""
	}
}

// skipText says what a person can do about a host that is kept out.
func skipText(v *hostView) string {
	switch v.skip {
	case ReasonDeleting:
		return "the Host is being deleted"
	case ReasonLifecycle:
		return fmt.Sprintf("its lifecycle is %s", v.host.Spec.Lifecycle)
	default:
		return "the release has no closure for it"
	}
}

// takesPart reports whether the lifecycle of a host lets rollouts move it.
func takesPart(h *nfv1.Host) bool {
	switch h.Spec.Lifecycle {
	case nfv1.LifecycleActive, "":
		return true
	case nfv1.LifecycleProvisioning:
		return h.Status.ObservedGeneration >= 0
	default:
		return false
	}
}

// matchingOutcome is the outcome of exactly the host's current assignment. A report
// about another revision, store path or rollout is no report.
func matchingOutcome(h *nfv1.Host) nfv1.AttemptOutcome {
	d, a := h.Spec.Desired, h.Status.Attempt
	if a == nil || a.Revision != d.Revision || a.StorePath != d.StorePath || a.RolloutUID != d.Rollout.UID {
		return ""
	}
	return a.Outcome
}

// deadline is when the current assignment times out: timeout after the latest of the
// assignment, the host's return, and the end of an outage of the fleet. There is none
// while the host waits for a reboot, and none for an offline host that nothing waits
// for: one that was assigned for its return, or is sent back.
func deadline(h *nfv1.Host, timeout time.Duration, reachable time.Time) time.Time {
	d := h.Spec.Desired
	if h.Status.Phase == nfv1.HostPhaseAwaitingReboot && h.Status.ObservedRevision >= d.Revision {
		return time.Time{}
	}
	from := d.AssignedTime.Time
	if reachable.After(from) {
		from = reachable
	}
	online := meta.FindStatusCondition(h.Status.Conditions, nfv1.ConditionOnline)
	switch {
	case online != nil && online.Status == metav1.ConditionTrue:
		if online.LastTransitionTime.After(from) {
			from = online.LastTransitionTime.Time
		}
	case d.Wave == "" || d.Intent == nfv1.IntentRevert:
		return time.Time{}
	}
	return from.Add(timeout)
}

// member reports whether the host has an assignment of this rollout's current attempt
// that belongs to a wave. Hosts that were deferred until the end belong to none.
func (v *hostView) member() bool {
	return v.mine && v.intent == nfv1.IntentDeploy && v.wave != "" && !v.retry
}

// left reports whether a member is no target any more.
func (v *hostView) left() bool { return !v.movable() }

// unassigned reports whether the rollout has yet to move the host.
func (v *hostView) unassigned() bool {
	return v.movable() && (!v.mine || v.retry || v.intent == nfv1.IntentNone)
}

// movable reports whether the rollout could move the host.
func (v *hostView) movable() bool { return v.target && v.skip == "" }

// succeeded reports whether the host runs what this rollout asked for, and is healthy or
// was when its wave had soaked.
func (v *hostView) succeeded() bool {
	return v.mine && v.intent != nfv1.IntentNone && v.outcome == nfv1.AttemptSucceeded && (v.healthy || v.settled) && v.failReason == ""
}

// inFlight reports whether the host has an assignment without an end.
func (v *hostView) inFlight() bool {
	return v.mine && v.intent != nfv1.IntentNone && !v.retry && !v.succeeded() && v.failReason == ""
}

// unavailable reports whether the host spends a place of its wave's maxUnavailable.
func (v *hostView) unavailable() bool {
	switch {
	case v.inFlight():
		return !v.awaitsReboot
	case v.online:
		return !v.healthy
	default:
		return v.mine && v.intent != nfv1.IntentNone
	}
}

// judge finds out whether the current assignment failed. soaking says that the host's
// wave has finished and is being watched, frozen that timeouts stand still.
func (v *hostView) judge(now time.Time, soaking, frozen bool) {
	if !v.mine || v.intent == nfv1.IntentNone {
		return
	}
	switch v.outcome {
	case nfv1.AttemptRolledBack, nfv1.AttemptFailed, nfv1.AttemptRefused:
		a := v.host.Status.Attempt
		v.failReason, v.failMessage = a.Reason, a.Message
		if v.failReason == "" {
			v.failReason = string(v.outcome)
		}
		return
	case nfv1.AttemptSucceeded:
		if soaking && !v.healthy {
			v.failReason = ReasonUnhealthy
			v.failMessage = "became unhealthy while its wave soaked: " + healthMessage(v.host)
			return
		}
	}
	if !frozen && !v.succeeded() && !v.deadline.IsZero() && !now.Before(v.deadline) {
		v.failReason = ReasonTimeout
		v.failMessage = fmt.Sprintf("no success by %s; last seen in phase %s", v.deadline.UTC().Format(time.RFC3339), phaseOf(v.host))
	}
}

func phaseOf(h *nfv1.Host) string {
	if h.Status.Phase == "" {
		return "unknown"
	}
	return string(h.Status.Phase)
}

func healthMessage(h *nfv1.Host) string {
	if c := meta.FindStatusCondition(h.Status.Conditions, nfv1.ConditionHealthy); c != nil && c.Message != "" {
		return c.Message
	}
	return "no health is reported"
}

// sortHosts puts hosts into the order in which a wave takes them. Online and available
// ones come first, so that the sickest machine is never the canary; in the last wave
// unavailable ones come first, since they spend their place anyway and the release may
// be what repairs them.
func sortHosts(rollout types.UID, views []*hostView, last bool) {
	for _, v := range views {
		v.order = sha256.Sum256([]byte(string(rollout) + "/" + string(v.host.UID)))
	}
	rank := func(v *hostView) int {
		switch {
		case !v.online:
			return 2
		case v.healthy == last:
			return 1
		default:
			return 0
		}
	}
	slices.SortFunc(views, func(a, b *hostView) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), bytes.Compare(a.order[:], b.order[:]), cmp.Compare(a.host.Name, b.host.Name))
	})
}
