// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package release

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// Pace says when to check again.
type Pace struct {
	// FirstRetry is how long after a check without a verdict the next one begins; it
	// doubles with each such check.
	FirstRetry time.Duration

	// LastRetry bounds that.
	LastRetry time.Duration

	// Recheck is how long after a release was found bad it is looked at again: somebody
	// may have uploaded what was missing.
	Recheck time.Duration

	// MaxAge is how old a good verdict may be when a rollout begins, ends a wave, or is
	// ready for the next one, before it is taken anew.
	MaxAge time.Duration
}

// DefaultPace is the pace that the manager uses.
func DefaultPace() Pace {
	return Pace{FirstRetry: 10 * time.Second, LastRetry: 5 * time.Minute, Recheck: 5 * time.Minute, MaxAge: rollout.VerdictMaxAge}
}

// observation is everything that a decision about a release rests on.
type observation struct {
	release *nfv1.Release
	now     time.Time
	pace    Pace
	check   checkState

	// rollouts are the unfinished rollouts that name the release, but for those that
	// pinned another one of the name.
	rollouts []*nfv1.Rollout
}

// decision is what to do about a release.
type decision struct {
	status nfv1.ReleaseStatus

	// begin is the check to start; nil if none is due.
	begin *request

	// settled says that the outcome of the last check is in the status, with retries and
	// retryAt to remember.
	settled bool
	retries int
	retryAt time.Time

	// free says that no rollout uses the release or is about to.
	free bool

	// recheckAfter is when to look again if nothing changes; 0 means never.
	recheckAfter time.Duration
}

// decide is a pure function of the observation.
func decide(o observation) decision {
	d := decision{status: *o.release.Status.DeepCopy(), retries: o.check.retries, retryAt: o.check.retryAt}
	d.free = len(o.rollouts) == 0
	req, invalid := newRequest(o.release.Spec)
	verdict := judge(o, invalid, &d)
	setConditions(o, verdict, &d.status)
	if o.release.Spec.Verification == nfv1.VerificationSkip || invalid != nil || !o.release.DeletionTimestamp.IsZero() || o.check.running {
		return d
	}
	switch due, ever := dueAt(o, verdict, d); {
	case !ever:
	case due.After(o.now):
		d.recheckAfter = due.Sub(o.now)
	default:
		d.begin = &req
	}
	return d
}

// newRequest reads what to check. What the API server lets through and cannot be read is
// the fault of the release, and no cache can help.
func newRequest(spec nfv1.ReleaseSpec) (request, error) {
	var req request
	var keys []string
	for _, cache := range spec.Caches {
		req.caches = append(req.caches, string(cache.URL))
		for _, key := range cache.PublicKeys {
			keys = append(keys, string(key))
		}
	}
	var err error
	if req.caches, err = nix.ParseCacheURLs(req.caches); err != nil {
		return request{}, fmt.Errorf("spec.caches: %w", err)
	}
	if req.keys, err = nix.ParsePublicKeys(keys); errors.Is(err, nix.ErrNoKeys) {
		return request{}, errors.New("spec.caches: none of the caches has publicKeys, so nothing can be trusted; list the key that signs the systems")
	} else if err != nil {
		return request{}, fmt.Errorf("spec.caches: %w", err)
	}
	for _, host := range slices.Sorted(maps.Keys(spec.Hosts)) {
		path, err := nix.ParseStorePath(string(spec.Hosts[host]))
		if err != nil {
			return request{}, fmt.Errorf("spec.hosts[%s]: %w", host, err)
		}
		req.toplevels = append(req.toplevels, path)
	}
	slices.Sort(req.toplevels)
	req.toplevels = slices.Compact(req.toplevels)
	return req, nil
}

// verdict is what the condition Verified says.
type verdict struct {
	status  metav1.ConditionStatus
	reason  string
	message string
}

// judge finds the verdict and puts what a check found into the status.
func judge(o observation, invalid error, d *decision) verdict {
	if o.release.Spec.Verification == nfv1.VerificationSkip {
		return verdict{metav1.ConditionUnknown, nfv1.ReasonVerificationSkipped, "spec.verification is Skip; the agents still check signatures"}
	}
	if invalid != nil {
		return verdict{metav1.ConditionFalse, nfv1.ReasonInvalid, limit(invalid.Error(), maxMessage)}
	}
	if o.check.outcome != nil {
		return record(o, d)
	}
	stored := meta.FindStatusCondition(o.release.Status.Conditions, nfv1.ConditionVerified)
	if stored == nil || o.release.Status.ObservedGeneration != o.release.Generation {
		return verdict{metav1.ConditionUnknown, nfv1.ReasonVerifying, fmt.Sprintf("checking the closures of %d hosts", len(o.release.Spec.Hosts))}
	}
	return verdict{stored.Status, stored.Reason, stored.Message}
}

// record takes the outcome of a check over.
func record(o observation, d *decision) verdict {
	report, err := o.check.outcome.report, o.check.outcome.err
	d.settled = true
	summary := report.Verdict()
	if err == nil && summary != binarycache.CacheUnreachable {
		d.retries, d.retryAt = 0, time.Time{}
		recordReport(o, report, &d.status)
		d.status.VerifiedAt = metav1.NewTime(o.now.Truncate(time.Second))
		return reportVerdict(report)
	}
	d.retries++
	d.retryAt = o.now.Add(backoff(o.pace, o.release.UID, d.retries))
	switch {
	case errors.Is(err, errTimeout):
		return verdict{metav1.ConditionUnknown, nfv1.ReasonCacheUnreachable, "the caches were too slow to check all closures; it is tried again"}
	case err != nil:
		return verdict{metav1.ConditionUnknown, nfv1.ReasonInternalError, limit(err.Error(), maxMessage)}
	}
	if d.status.VerifiedAt.IsZero() {
		recordReport(o, report, &d.status)
	} else {
		// Numbers of a check that saw everything say more than those of an outage.
		d.status.Offenders = offenders(o.release.Spec.Hosts, report)
	}
	return reportVerdict(report)
}

// dueAt says when the next check is due; false if nothing but a change can make it so.
func dueAt(o observation, v verdict, d decision) (time.Time, bool) {
	verified := d.status.VerifiedAt.Time
	switch v.status {
	case metav1.ConditionUnknown:
		if v.reason == nfv1.ReasonVerifying {
			return o.now, true
		}
		return d.retryAt, true
	case metav1.ConditionFalse:
		due := verified.Add(jitter(o.pace.Recheck, o.release.UID, 0))
		if asked := lastAsked(o.rollouts); asked.After(verified) && asked.Before(due) {
			due = asked
		}
		return due, true
	default:
		// A time ahead of our clock is waited for: taken for now, it would still be later
		// than the next verdict, and the one after it.
		asked := lastAsked(o.rollouts)
		return asked, asked.Sub(verified) >= o.pace.MaxAge
	}
}

// lastAsked is when a rollout last came to a point where the verdict matters: it was
// made, or a wave is ready to start, started, finished or soaked.
func lastAsked(rollouts []*nfv1.Rollout) time.Time {
	var last time.Time
	later := func(t metav1.Time) {
		if t.After(last) {
			last = t.Time
		}
	}
	for _, ro := range rollouts {
		later(ro.CreationTimestamp)
		for _, w := range ro.Status.Waves {
			later(w.ReadyAt)
			later(w.StartedAt)
			later(w.FinishedAt)
			later(w.SoakedAt)
		}
	}
	return last
}

// backoff is the pause before a retry: doubled each time, bounded.
func backoff(pace Pace, uid types.UID, retries int) time.Duration {
	pause := pace.LastRetry
	if shift := retries - 1; shift < 16 && pace.FirstRetry<<shift < pause {
		pause = pace.FirstRetry << shift
	}
	return jitter(pause, uid, retries)
}

// jitter shortens a pause by up to a quarter, by a different part for each release and
// try, so that releases do not ask a cache that is back all at once. It is no random
// number: the same observation gives the same decision.
func jitter(pause time.Duration, uid types.UID, n int) time.Duration {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%s/%d", uid, n) // Writing to a hash cannot fail.
	return pause - pause/4*time.Duration(h.Sum32()%1000)/1000
}
