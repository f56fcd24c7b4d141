// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package release

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
)

const (
	maxMessage         = 1024
	maxOffenderMessage = 512
	maxHostName        = 200
	maxNames           = 5
)

// setConditions says in the terms of kstatus what the verdict means.
func setConditions(o observation, v verdict, status *nfv1.ReleaseStatus) {
	status.ObservedGeneration = o.release.Generation
	if status.Closures == nil { // how many hosts it is for is known before, and without, any check
		status.Closures = &nfv1.ClosureCounts{Hosts: int32(len(o.release.Spec.Hosts))}
	}
	set := func(kind string, s metav1.ConditionStatus, reason, message string) {
		status.Conditions = with(status.Conditions, metav1.Condition{
			Type: kind, Status: s, Reason: reason, Message: message, ObservedGeneration: o.release.Generation,
		}, o.now)
	}
	set(nfv1.ConditionVerified, v.status, v.reason, v.message)
	ready := v.status
	if v.reason == nfv1.ReasonVerificationSkipped {
		ready = metav1.ConditionTrue
	}
	set(nfv1.ConditionReady, ready, v.reason, v.message)
	for kind, present := range map[string]bool{
		nfv1.ConditionReconciling: ready == metav1.ConditionUnknown,
		nfv1.ConditionStalled:     ready == metav1.ConditionFalse,
	} {
		if present {
			set(kind, metav1.ConditionTrue, v.reason, v.message)
		} else {
			meta.RemoveStatusCondition(&status.Conditions, kind)
		}
	}
	inUse := usage(o)
	set(nfv1.ConditionInUse, inUse.status, inUse.reason, inUse.message)
	slices.SortFunc(status.Conditions, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
}

// with replaces a condition. Its transition time stays while the status does.
func with(conditions []metav1.Condition, c metav1.Condition, now time.Time) []metav1.Condition {
	c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
	i := slices.IndexFunc(conditions, func(old metav1.Condition) bool { return old.Type == c.Type })
	if i < 0 {
		return append(conditions, c)
	}
	if conditions[i].Status == c.Status {
		c.LastTransitionTime = conditions[i].LastTransitionTime
	}
	conditions[i] = c
	return conditions
}

// usage names the rollouts that have pinned the release.
func usage(o observation) verdict {
	var names []string
	for _, ro := range o.rollouts {
		if ro.Status.ReleaseUID == o.release.UID {
			names = append(names, ro.Name)
		}
	}
	deleting := !o.release.DeletionTimestamp.IsZero()
	switch {
	case len(names) > 0 && deleting:
		return verdict{metav1.ConditionTrue, nfv1.ReasonUsedByRollout,
			"deletion waits for unfinished rollouts: " + list(names) + "; cancel them, or wait"}
	case len(names) > 0:
		return verdict{metav1.ConditionTrue, nfv1.ReasonUsedByRollout, "unfinished rollouts: " + list(names)}
	default:
		return verdict{metav1.ConditionFalse, nfv1.ReasonNotUsed, "no unfinished rollout uses the release"}
	}
}

// recordReport takes the numbers of a check over.
func recordReport(o observation, r binarycache.Report, status *nfv1.ReleaseStatus) {
	status.Closures = &nfv1.ClosureCounts{
		Hosts:     int32(len(o.release.Spec.Hosts)),
		Toplevels: int32(len(r.Toplevels)),
		Verified:  int32(r.VerifiedCount()),
		Paths:     r.Paths,
	}
	status.DownloadBytes, status.UnpackedBytes = r.DownloadBytes, r.UnpackedBytes
	status.Offenders = offenders(o.release.Spec.Hosts, r)
}

func offenders(hosts map[string]nfv1.StorePath, r binarycache.Report) []nfv1.Offender {
	// The first host of each system by name, of those that can be the name of a Host.
	host := make(map[string]string, len(hosts))
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(hosts))) {
		if len(name) <= maxHostName && len(validation.IsDNS1123Subdomain(name)) == 0 {
			host[string(hosts[name])] = name
		}
	}
	var out []nfv1.Offender
	for _, o := range r.Offenders {
		out = append(out, nfv1.Offender{
			StorePath: nfv1.StorePath(o.Path),
			Reason:    string(o.Verdict),
			Host:      nfv1.HostName(host[string(o.Toplevel)]),
			Message:   limit(o.Message, maxOffenderMessage),
		})
	}
	return out
}

// reportVerdict says in a sentence what a check found. The same findings give the same
// sentence.
func reportVerdict(r binarycache.Report) verdict {
	summary := r.Verdict()
	if summary == binarycache.Verified {
		return verdict{metav1.ConditionTrue, nfv1.ReasonVerified, fmt.Sprintf("%s with %s can be fetched and are signed",
			count(len(r.Toplevels), "system"), count(int(r.Paths), "store path"))}
	}
	bad := len(r.Toplevels) - r.VerifiedCount()
	message := fmt.Sprintf("%d of %s", bad, count(len(r.Toplevels), "system"))
	if i := slices.IndexFunc(r.Offenders, func(o binarycache.Offender) bool { return o.Verdict == summary }); i >= 0 {
		message += fmt.Sprintf(": %s: %s", r.Offenders[i].Path, r.Offenders[i].Message)
	}
	if r.OffenderCount > 1 {
		message += fmt.Sprintf(" (and %s more)", count(r.OffenderCount-1, "path"))
	}
	status := metav1.ConditionFalse
	if summary == binarycache.CacheUnreachable {
		status = metav1.ConditionUnknown
	}
	return verdict{status, reasonOf(summary), limit(message, maxMessage)}
}

func reasonOf(v binarycache.Verdict) string {
	switch v {
	case binarycache.Verified:
		return nfv1.ReasonVerified
	case binarycache.CacheUnreachable:
		return nfv1.ReasonCacheUnreachable
	case binarycache.MissingPaths:
		return nfv1.ReasonMissingPaths
	case binarycache.UntrustedSignature:
		return nfv1.ReasonUntrustedSignature
	default:
		return nfv1.ReasonInvalid
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// list names the first few.
func list(names []string) string {
	slices.Sort(names)
	if len(names) > maxNames {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ", "), len(names)-maxNames)
	}
	return strings.Join(names, ", ")
}

func limit(s string, most int) string {
	const dots = "..."
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len(dots)], "") + dots
}
