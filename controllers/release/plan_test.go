// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package release

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
)

const (
	systemA = "/nix/store/sm3am2n802a4fbc96m39byqx39chl4kp-nixos-system-a"
	systemB = "/nix/store/dqh9lqb3abv90ziv5mf2hxrbvf2ibihw-nixos-system-b"
	part    = "/nix/store/hic7pqzjfm72hcxd5s4x77raa07v8vvb-part"
	keyOne  = "one:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	keyTwo  = "one:BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newRelease() *nfv1.Release {
	return &nfv1.Release{
		ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "r1", UID: "uid-1", Generation: 1},
		Spec: nfv1.ReleaseSpec{
			Caches:       []nfv1.BinaryCache{{URL: "http://cache", PublicKeys: []nfv1.NixPublicKey{keyOne}}},
			Verification: nfv1.VerificationRequired,
			Hosts:        map[string]nfv1.StorePath{"web-02": systemA, "web-01": systemA, "db-01": systemB},
		},
		Status: nfv1.ReleaseStatus{ObservedGeneration: -1},
	}
}

func newRollout(name string, change func(*nfv1.Rollout)) *nfv1.Rollout {
	ro := &nfv1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(epoch)},
		Spec:       nfv1.RolloutSpec{Release: "r1"},
		Status:     nfv1.RolloutStatus{ReleaseUID: "uid-1", Phase: nfv1.RolloutPhaseProgressing},
	}
	if change != nil {
		change(ro)
	}
	return ro
}

func report(v map[nix.StorePath]binarycache.Verdict, offenders ...binarycache.Offender) binarycache.Report {
	return binarycache.Report{
		Toplevels: v, Paths: 7, DownloadBytes: 100, UnpackedBytes: 300, Offenders: offenders, OffenderCount: len(offenders),
	}
}

func goodReport() binarycache.Report {
	return report(map[nix.StorePath]binarycache.Verdict{systemA: binarycache.Verified, systemB: binarycache.Verified})
}

func badReport(v binarycache.Verdict) binarycache.Report {
	return report(map[nix.StorePath]binarycache.Verdict{systemA: v, systemB: binarycache.Verified},
		binarycache.Offender{Path: part, Verdict: v, Toplevel: systemA, Message: "it is bad"})
}

// conditions renders conditions as "Type=Status(Reason)".
func conditions(status nfv1.ReleaseStatus) []string {
	var out []string
	for _, c := range status.Conditions {
		out = append(out, fmt.Sprintf("%s=%s(%s)", c.Type, c.Status, c.Reason))
	}
	return out
}

func message(status nfv1.ReleaseStatus, kind string) string {
	if c := meta.FindStatusCondition(status.Conditions, kind); c != nil {
		return c.Message
	}
	return ""
}

func TestDecideVerdicts(t *testing.T) {
	notUsed := "InUse=False(NotUsed)"
	unknown := func(reason string) []string {
		return []string{notUsed, "Ready=Unknown(" + reason + ")", "Reconciling=True(" + reason + ")", "Verified=Unknown(" + reason + ")"}
	}
	failed := func(reason string) []string {
		return []string{notUsed, "Ready=False(" + reason + ")", "Stalled=True(" + reason + ")", "Verified=False(" + reason + ")"}
	}
	cases := []struct {
		name    string
		change  func(*nfv1.Release)
		check   checkState
		want    []string
		message string
		begins  bool
		recheck bool // later
	}{
		{name: "new", want: unknown("Verifying"), message: "checking the closures of 3 hosts", begins: true},
		{name: "new, under way", check: checkState{running: true}, want: unknown("Verifying")},
		{
			name: "good", check: checkState{outcome: &outcome{report: goodReport()}},
			want:    []string{notUsed, "Ready=True(Verified)", "Verified=True(Verified)"},
			message: "2 systems with 7 store paths can be fetched and are signed",
		},
		{
			name: "missing", check: checkState{outcome: &outcome{report: badReport(binarycache.MissingPaths)}},
			want: failed("MissingPaths"), message: "1 of 2 systems: " + part + ": it is bad", recheck: true,
		},
		{
			name: "untrusted", check: checkState{outcome: &outcome{report: badReport(binarycache.UntrustedSignature)}},
			want: failed("UntrustedSignature"), message: "it is bad", recheck: true,
		},
		{
			name: "invalid", check: checkState{outcome: &outcome{report: badReport(binarycache.Invalid)}},
			want: failed("Invalid"), message: "it is bad", recheck: true,
		},
		{
			name: "cache down", check: checkState{outcome: &outcome{report: badReport(binarycache.CacheUnreachable)}},
			want: unknown("CacheUnreachable"), message: "it is bad", recheck: true,
		},
		{
			name: "too slow", check: checkState{outcome: &outcome{err: errTimeout}},
			want: unknown("CacheUnreachable"), message: "too slow", recheck: true,
		},
		{
			name: "broken", check: checkState{outcome: &outcome{err: errors.New("too many paths")}},
			want: unknown("InternalError"), message: "too many paths", recheck: true,
		},
		{
			name: "skipped", change: func(r *nfv1.Release) { r.Spec.Verification = nfv1.VerificationSkip },
			want: []string{notUsed, "Ready=True(VerificationSkipped)", "Verified=Unknown(VerificationSkipped)"}, message: "agents still check",
		},
		{
			name: "no key", change: func(r *nfv1.Release) { r.Spec.Caches[0].PublicKeys = nil },
			want: failed("Invalid"), message: "none of the caches has publicKeys",
		},
		{
			name: "two keys of one name", change: func(r *nfv1.Release) {
				r.Spec.Caches = append(r.Spec.Caches, nfv1.BinaryCache{URL: "http://other", PublicKeys: []nfv1.NixPublicKey{keyTwo}})
			},
			want: failed("Invalid"), message: `two different public keys are named "one"`,
		},
		{
			name: "cache that Nix would read settings from", change: func(r *nfv1.Release) { r.Spec.Caches[0].URL = "http://u:secret@cache" },
			want: failed("Invalid"), message: "spec.caches",
		},
		{
			name: "no store path", change: func(r *nfv1.Release) { r.Spec.Hosts["web-01"] = systemA + "/bin" },
			want: failed("Invalid"), message: "spec.hosts[web-01]",
		},
		{
			name: "being deleted", change: func(r *nfv1.Release) { r.DeletionTimestamp = new(metav1.NewTime(epoch)) },
			want: unknown("Verifying"),
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			rel := newRelease()
			if tc.change != nil {
				tc.change(rel)
			}
			d := decide(observation{release: rel, now: epoch, pace: DefaultPace(), check: tc.check})
			if diff := cmp.Diff(tc.want, conditions(d.status)); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			for _, kind := range []string{nfv1.ConditionVerified, nfv1.ConditionReady} {
				if got := message(d.status, kind); !strings.Contains(got, tc.message) {
					t.Errorf("message of %s: %q, want %q", kind, got, tc.message)
				}
			}
			if strings.Contains(message(d.status, nfv1.ConditionVerified), "secret") {
				t.Error("the message shows a password")
			}
			if got := d.begin != nil; got != tc.begins {
				t.Errorf("begins a check: %v", got)
			}
			if got := d.recheckAfter > 0; got != tc.recheck {
				t.Errorf("looks again after %s", d.recheckAfter)
			}
			if c := d.status.Closures; c == nil || int(c.Hosts) == 0 {
				t.Errorf("counts %+v: the number of hosts needs no check", c)
			}
			if d.status.ObservedGeneration != 1 {
				t.Errorf("observedGeneration %d", d.status.ObservedGeneration)
			}
			if tc.begins {
				want := []nix.StorePath{systemB, systemA}
				if diff := cmp.Diff(want, d.begin.toplevels); diff != "" {
					t.Errorf("toplevels to check (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestDecideRecordsTheReport(t *testing.T) {
	rel := newRelease()
	now := epoch.Add(700 * time.Millisecond)
	bad := decide(observation{release: rel, now: now, pace: DefaultPace(), check: checkState{outcome: &outcome{report: badReport(binarycache.MissingPaths)}}})
	want := nfv1.ReleaseStatus{
		ObservedGeneration: 1,
		Closures:           &nfv1.ClosureCounts{Hosts: 3, Toplevels: 2, Verified: 1, Paths: 7},
		DownloadBytes:      100, UnpackedBytes: 300,
		VerifiedAt: metav1.NewTime(epoch),
		Offenders:  []nfv1.Offender{{StorePath: part, Reason: "MissingPaths", Host: "web-01", Message: "it is bad"}},
		Conditions: bad.status.Conditions,
	}
	if diff := cmp.Diff(want, bad.status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}

	// An outage keeps the numbers and the time of the last verdict, and says what is dark.
	rel.Status = bad.status
	outage := decide(observation{release: rel, now: now.Add(time.Hour), pace: DefaultPace(), check: checkState{outcome: &outcome{
		report: binarycache.Report{Toplevels: map[nix.StorePath]binarycache.Verdict{systemA: binarycache.CacheUnreachable}, OffenderCount: 1},
	}}})
	if outage.status.VerifiedAt != bad.status.VerifiedAt || outage.status.DownloadBytes != 100 || outage.status.Offenders != nil {
		t.Errorf("after an outage: %+v", outage.status)
	}

	// A good verdict takes the offenders away.
	rel.Status = outage.status
	good := decide(observation{release: rel, now: now.Add(2 * time.Hour), pace: DefaultPace(), check: checkState{outcome: &outcome{report: goodReport()}}})
	if good.status.Offenders != nil || good.status.Closures.Verified != 2 || good.retries != 0 || !good.settled {
		t.Errorf("after a good verdict: %+v", good)
	}
}

func TestDecideKeepsTransitionTimes(t *testing.T) {
	rel := newRelease()
	rel.Status = decide(observation{release: rel, now: epoch, pace: DefaultPace()}).status
	later := decide(observation{release: rel, now: epoch.Add(time.Hour), pace: DefaultPace(), check: checkState{running: true}})
	if diff := cmp.Diff(rel.Status, later.status); diff != "" {
		t.Errorf("the status changes though nothing happened:\n%s", diff)
	}
	done := decide(observation{release: rel, now: epoch.Add(time.Hour), pace: DefaultPace(), check: checkState{outcome: &outcome{report: goodReport()}}})
	verified := meta.FindStatusCondition(done.status.Conditions, nfv1.ConditionVerified)
	inUse := meta.FindStatusCondition(done.status.Conditions, nfv1.ConditionInUse)
	if !verified.LastTransitionTime.Equal(new(metav1.NewTime(epoch.Add(time.Hour)))) || !inUse.LastTransitionTime.Equal(new(metav1.NewTime(epoch))) {
		t.Errorf("transition times: Verified %s, InUse %s", verified.LastTransitionTime, inUse.LastTransitionTime)
	}
}

// withVerdict is a release that was checked at epoch.
func withVerdict(r binarycache.Report) *nfv1.Release {
	rel := newRelease()
	rel.Status = decide(observation{release: rel, now: epoch, pace: DefaultPace(), check: checkState{outcome: &outcome{report: r}}}).status
	return rel
}

func TestDecideChecksAgain(t *testing.T) {
	wave := func(w nfv1.WaveStatus) func(*nfv1.Rollout) {
		return func(ro *nfv1.Rollout) { ro.Status.Waves = []nfv1.WaveStatus{w} }
	}
	at := func(d time.Duration) metav1.Time { return metav1.NewTime(epoch.Add(d)) }
	good, missing := goodReport(), badReport(binarycache.MissingPaths)
	cases := []struct {
		name     string
		report   binarycache.Report
		rollouts []*nfv1.Rollout
		after    time.Duration
		begins   bool
		waits    bool
	}{
		{name: "good and unused", report: good, after: 1000 * time.Hour},
		{name: "good, rollout made at once", report: good, rollouts: []*nfv1.Rollout{newRollout("a", nil)}, after: 10 * time.Second},
		{name: "good, rollout made later", report: good, after: time.Hour, begins: true, rollouts: []*nfv1.Rollout{
			newRollout("a", func(ro *nfv1.Rollout) { ro.CreationTimestamp = at(time.Hour) }),
		}},
		{name: "good, wave started soon", report: good, rollouts: []*nfv1.Rollout{newRollout("a", wave(nfv1.WaveStatus{StartedAt: at(30 * time.Second)}))}, after: time.Hour},
		{name: "good, wave started later", report: good, rollouts: []*nfv1.Rollout{newRollout("a", wave(nfv1.WaveStatus{StartedAt: at(time.Hour)}))}, after: time.Hour, begins: true},
		{name: "good, wave finished later", report: good, rollouts: []*nfv1.Rollout{newRollout("a", wave(nfv1.WaveStatus{FinishedAt: at(time.Hour)}))}, after: time.Hour, begins: true},
		{name: "good, wave soaked later", report: good, rollouts: []*nfv1.Rollout{newRollout("a", wave(nfv1.WaveStatus{SoakedAt: at(time.Hour)}))}, after: time.Hour, begins: true},
		{name: "good, the API server's clock is ahead", report: good, after: time.Minute, waits: true, rollouts: []*nfv1.Rollout{
			newRollout("a", func(ro *nfv1.Rollout) { ro.CreationTimestamp = at(time.Hour) }),
		}},
		{name: "bad, soon", report: missing, after: time.Minute, waits: true},
		{name: "bad, later", report: missing, after: 5 * time.Minute, begins: true},
		{name: "bad, and a rollout asks", report: missing, after: time.Minute, begins: true, rollouts: []*nfv1.Rollout{
			newRollout("a", func(ro *nfv1.Rollout) { ro.CreationTimestamp = at(30 * time.Second) }),
		}},
		{name: "bad, and a rollout asked before", report: missing, after: time.Minute, waits: true, rollouts: []*nfv1.Rollout{
			newRollout("a", func(ro *nfv1.Rollout) { ro.CreationTimestamp = at(-time.Minute) }),
		}},
		{name: "no verdict before a restart", report: badReport(binarycache.CacheUnreachable), after: time.Second, begins: true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			d := decide(observation{release: withVerdict(tc.report), now: epoch.Add(tc.after), pace: DefaultPace(), rollouts: tc.rollouts})
			if (d.begin != nil) != tc.begins || (d.recheckAfter > 0) != tc.waits {
				t.Errorf("begins %v, looks again after %s", d.begin != nil, d.recheckAfter)
			}
		})
	}
}

func TestDecideBacksOff(t *testing.T) {
	pace := DefaultPace()
	rel, check, now := newRelease(), checkState{}, epoch
	var previous time.Duration
	for try := 1; try <= 12; try++ {
		check.outcome = &outcome{report: badReport(binarycache.CacheUnreachable)}
		d := decide(observation{release: rel, now: now, pace: pace, check: check})
		if !d.settled || d.retries != try || d.begin != nil {
			t.Fatalf("try %d: %+v", try, d)
		}
		if d.recheckAfter <= 0 || d.recheckAfter > pace.LastRetry || d.recheckAfter < previous*3/4 {
			t.Errorf("pause %d is %s after %s", try, d.recheckAfter, previous)
		}
		previous = d.recheckAfter
		rel.Status = d.status
		check = checkState{retries: d.retries, retryAt: d.retryAt}
		now = d.retryAt.Add(-time.Millisecond)
		if d := decide(observation{release: rel, now: now, pace: pace, check: check}); d.begin != nil {
			t.Fatalf("try %d: checks before the time", try)
		}
		now = d.retryAt
		if d := decide(observation{release: rel, now: now, pace: pace, check: check}); d.begin == nil {
			t.Fatalf("try %d: does not check when it is time", try)
		}
	}
	if previous < pace.LastRetry*3/4 {
		t.Errorf("the last pause is %s", previous)
	}
}

func TestDecideUse(t *testing.T) {
	pinned := func(name string) *nfv1.Rollout { return newRollout(name, nil) }
	unpinned := newRollout("new", func(ro *nfv1.Rollout) { ro.Status.ReleaseUID = "" })
	var many []*nfv1.Rollout
	for i := range 7 {
		many = append(many, pinned(fmt.Sprintf("many-%d", i)))
	}
	cases := []struct {
		name     string
		deleting bool
		rollouts []*nfv1.Rollout
		want     string
		message  string
		free     bool
	}{
		{"nobody", false, nil, "False", "no unfinished rollout uses the release", true},
		{"about to be used", false, []*nfv1.Rollout{unpinned}, "False", "no unfinished rollout", false},
		{"two", false, []*nfv1.Rollout{pinned("b"), pinned("a")}, "True", "unfinished rollouts: a, b", false},
		{"many", false, many, "True", "many-0, many-1, many-2, many-3, many-4 and 2 more", false},
		{"deleted in use", true, []*nfv1.Rollout{pinned("a")}, "True", "deletion waits for unfinished rollouts: a; cancel them, or wait", false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			rel := withVerdict(goodReport())
			if tc.deleting {
				rel.DeletionTimestamp = new(metav1.NewTime(epoch))
			}
			d := decide(observation{release: rel, now: epoch, pace: DefaultPace(), rollouts: tc.rollouts})
			c := meta.FindStatusCondition(d.status.Conditions, nfv1.ConditionInUse)
			if string(c.Status) != tc.want || !strings.Contains(c.Message, tc.message) || d.free != tc.free {
				t.Errorf("InUse %s %q, free %v", c.Status, c.Message, d.free)
			}
		})
	}
}

// TestDecideIsStable: the same observation gives the same decision, and a status that was
// written is not written again, whatever the state.
func TestDecideIsStable(t *testing.T) {
	verdicts := []binarycache.Verdict{
		binarycache.Verified, binarycache.CacheUnreachable, binarycache.MissingPaths, binarycache.Invalid, binarycache.UntrustedSignature,
	}
	rapid.Check(t, func(r *rapid.T) {
		rel := newRelease()
		if rapid.Bool().Draw(r, "skip") {
			rel.Spec.Verification = nfv1.VerificationSkip
		}
		now := epoch
		for range rapid.IntRange(1, 6).Draw(r, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(r, "pause")))
			o := observation{release: rel, now: now, pace: DefaultPace()}
			switch rapid.IntRange(0, 3).Draw(r, "check") {
			case 0:
				o.check.running = true
			case 1:
				v := rapid.SampledFrom(verdicts).Draw(r, "verdict")
				o.check.outcome = &outcome{report: badReport(v)}
				if v == binarycache.Verified {
					o.check.outcome.report = goodReport()
				}
			case 2:
				o.check.outcome = &outcome{err: errors.New("broken")}
			}
			if rapid.Bool().Draw(r, "used") {
				o.rollouts = []*nfv1.Rollout{newRollout("a", nil)}
			}
			before := rel.DeepCopy()
			d := decide(o)
			if diff := cmp.Diff(before, rel); diff != "" {
				r.Fatalf("decide changed what it was given:\n%s", diff)
			}
			if diff := cmp.Diff(d.status, decide(o).status); diff != "" {
				r.Fatalf("the second decision differs:\n%s", diff)
			}
			rel.Status = d.status
			o.check.outcome, o.now = nil, now.Add(time.Second)
			if diff := cmp.Diff(rel.Status, decide(o).status); diff != "" {
				r.Fatalf("the status does not settle:\n%s", diff)
			}
			requireKstatus(r, rel.Status)
		}
	})
}

// requireKstatus holds the status to the rules that GitOps tools judge by.
func requireKstatus(t *rapid.T, status nfv1.ReleaseStatus) {
	ready := meta.FindStatusCondition(status.Conditions, nfv1.ConditionReady)
	reconciling := meta.IsStatusConditionTrue(status.Conditions, nfv1.ConditionReconciling)
	stalled := meta.IsStatusConditionTrue(status.Conditions, nfv1.ConditionStalled)
	want := map[metav1.ConditionStatus][2]bool{
		metav1.ConditionTrue: {false, false}, metav1.ConditionFalse: {false, true}, metav1.ConditionUnknown: {true, false},
	}
	if ready == nil || want[ready.Status] != [2]bool{reconciling, stalled} {
		t.Fatalf("conditions %v", conditions(status))
	}
	for _, c := range status.Conditions {
		if c.Message == "" || c.Reason == "" || c.LastTransitionTime.IsZero() {
			t.Fatalf("condition %+v", c)
		}
	}
}

func TestLimit(t *testing.T) {
	if got := limit(strings.Repeat("ä", 400), 512); len(got) > 512 || !strings.HasSuffix(got, "ä...") {
		t.Errorf("got %d bytes: %q", len(got), got[len(got)-10:])
	}
}
