// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package view

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// "go test ./internal/cli/view -update" writes the golden files anew; read the difference.
var update = flag.Bool("update", false, "write the golden files anew")

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

const (
	pathA nfv1.StorePath = "/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01-26.05.A"
	pathB nfv1.StorePath = "/nix/store/1s1nnhrcgkygy9y5skrpavwx2jzzpcmf-nixos-system-web-01-26.05.B"
)

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func cond(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: ago(time.Hour)}
}

type change func(*nfv1.Host)

// host is online, healthy and runs release a, as asked.
func host(name string, changes ...change) *nfv1.Host {
	h := &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: name, Generation: 2, Labels: map[string]string{"role": "web"}},
		Spec: nfv1.HostSpec{
			Platform: nfv1.PlatformX8664Linux, Lifecycle: nfv1.LifecycleActive,
			Desired: &nfv1.Desired{
				Revision: 1, Intent: nfv1.IntentDeploy, StorePath: pathA, Wave: "all", AssignedTime: ago(3 * time.Hour),
				Release: &nfv1.ObjectReference{Name: "a", UID: "release-a"}, Rollout: &nfv1.ObjectReference{Name: "to-a", UID: "to-a"},
			},
		},
		Status: nfv1.HostStatus{
			ObservedGeneration: 2, ObservedRevision: 1, Phase: nfv1.HostPhaseIdle,
			Running: &nfv1.SystemGeneration{StorePath: pathA, Generation: 1, Label: "26.05.A"},
			Booted:  &nfv1.SystemGeneration{StorePath: pathA, Label: "26.05.A"},
			Profile: &nfv1.SystemGeneration{StorePath: pathA, Generation: 1},
			Conditions: []metav1.Condition{
				cond(nfv1.ConditionReady, metav1.ConditionTrue, nfv1.ReasonUpToDate, "runs what is asked"),
				cond(nfv1.ConditionOnline, metav1.ConditionTrue, nfv1.ReasonLeaseRenewed, ""),
				cond(nfv1.ConditionHealthy, metav1.ConditionTrue, "Healthy", ""),
				cond(nfv1.ConditionUpToDate, metav1.ConditionTrue, nfv1.ReasonUpToDate, ""),
			},
			Attempt: &nfv1.HostAttempt{
				Revision: 1, StorePath: pathA, RolloutUID: "to-a", Outcome: nfv1.AttemptSucceeded, Reason: nfv1.ReasonCompleted,
				StartedAt: ago(179 * time.Minute), FinishedAt: ago(178 * time.Minute),
			},
			HealthChecks: []nfv1.HealthCheckResult{{Name: "service", State: nfv1.HealthStateHealthy, Since: ago(178 * time.Minute)}},
			NodeInfo:     &nfv1.NodeInfo{AgentVersion: "v0.1.0", NixVersion: "2.31.2", KernelVersion: "6.12.1"},
		},
	}
	h.Status.History = []nfv1.HostAttempt{*h.Status.Attempt}
	for _, c := range changes {
		c(h)
	}
	return h
}

func set(kind string, status metav1.ConditionStatus, reason, message string) change {
	return func(h *nfv1.Host) {
		for i := range h.Status.Conditions {
			if h.Status.Conditions[i].Type == kind {
				h.Status.Conditions[i] = cond(kind, status, reason, message)
				return
			}
		}
		h.Status.Conditions = append(h.Status.Conditions, cond(kind, status, reason, message))
	}
}

// asked asks for release b.
func asked(h *nfv1.Host) {
	h.Spec.Desired = &nfv1.Desired{
		Revision: 2, Intent: nfv1.IntentDeploy, StorePath: pathB, PreviousStorePath: pathA, Wave: "canary", AssignedTime: ago(2 * time.Minute),
		Release: &nfv1.ObjectReference{Name: "b", UID: "release-b"}, Rollout: &nfv1.ObjectReference{Name: "to-b", UID: "to-b"},
	}
}

func rolledBack(h *nfv1.Host) {
	asked(h)
	a := nfv1.HostAttempt{
		Revision: 2, StorePath: pathB, RolloutUID: "to-b", Outcome: nfv1.AttemptRolledBack, Reason: nfv1.ReasonHealthCheckFailed,
		Message:   `health check "service" did not pass within 20s: exit status 1: connection refused`,
		StartedAt: ago(100 * time.Second), FinishedAt: ago(70 * time.Second),
	}
	h.Status.ObservedRevision = 2
	h.Status.Attempt = &a
	h.Status.History = append([]nfv1.HostAttempt{a}, h.Status.History...)
	set(nfv1.ConditionUpToDate, metav1.ConditionFalse, nfv1.ReasonHealthCheckFailed, "")(h)
	set(nfv1.ConditionReady, metav1.ConditionFalse, nfv1.ReasonHealthCheckFailed, "rolled back")(h)
}

func fetching(h *nfv1.Host) {
	asked(h)
	h.Status.ObservedRevision = 2
	h.Status.Phase = nfv1.HostPhaseFetching
	h.Status.Attempt = &nfv1.HostAttempt{Revision: 2, StorePath: pathB, RolloutUID: "to-b", StartedAt: ago(time.Minute)}
	h.Status.Fetch = &nfv1.FetchProgress{PathsDone: 12, PathsTotal: 40, BytesDone: 3 << 20, BytesTotal: 90 << 20}
	set(nfv1.ConditionUpToDate, metav1.ConditionFalse, nfv1.ReasonAttemptInProgress, "")(h)
}

func offline(h *nfv1.Host) {
	set(nfv1.ConditionOnline, metav1.ConditionUnknown, nfv1.ReasonLeaseExpired, "the Lease has not moved for 180s")(h)
}

func fresh(h *nfv1.Host) {
	h.Spec.Desired = nil
	h.Status = nfv1.HostStatus{ObservedGeneration: -1}
	set(nfv1.ConditionOnline, metav1.ConditionUnknown, nfv1.ReasonNeverSeen, "")(h)
}

func hostile(h *nfv1.Host) {
	h.Status.Running.Label = "\x1b[2J\x07evil\u202egnirts\nsecond line"
}

func member(lastSeen time.Duration, name string, changes ...change) Member {
	m := Member{Host: host(name, changes...)}
	if lastSeen >= 0 {
		m.LastSeen = now.Add(-lastSeen)
	}
	return m
}

func fleet() []Member {
	return []Member{
		member(3*time.Second, "web-01"),
		member(4*time.Second, "web-02", rolledBack),
		member(2*time.Second, "web-03", fetching),
		member(2*time.Hour, "db-01", offline, asked),
		member(-1, "new-01", fresh),
		member(9*time.Second, "evil-01", hostile, set(nfv1.ConditionRebootRequired, metav1.ConditionTrue, "Kernel", "another kernel is installed"),
			set(nfv1.ConditionHealthy, metav1.ConditionFalse, nfv1.ReasonUnhealthy, "")),
	}
}

func TestFleet(t *testing.T) {
	tests := map[string]Options{
		"fleet-file":       {},
		"fleet-wide":       {Wide: true, Namespaces: true},
		"fleet-terminal":   {Width: 120, Color: true},
		"fleet-80-columns": {Width: 80},
		"fleet-40-columns": {Width: 40},
		"fleet-20-columns": {Width: 20},
	}
	for name, o := range tests {
		t.Run(name, func(t *testing.T) {
			o.Now, o.StaleAfter = now, 10*time.Minute
			members := fleet()
			SortMembers(members)
			got := Fleet(members, o)
			golden(t, name, got)
			checkLines(t, got, o)
		})
	}
}

// checkLines sees to it that nothing wraps and nothing can play with the terminal.
func checkLines(t *testing.T, text string, o Options) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		for _, s := range []style{bold, dim, red, green, yellow} {
			line = strings.ReplaceAll(line, "\x1b["+string(s)+"m", "")
		}
		line = strings.ReplaceAll(line, "\x1b[0m", "")
		if strings.ContainsAny(line, "\x1b\x07\u202e") {
			t.Errorf("a control character got through: %q", line)
		}
		if o.Width > 0 && !o.Wide && textWidth(line) > o.Width {
			t.Errorf("%d columns in a terminal of %d: %q", textWidth(line), o.Width, line)
		}
	}
}

func TestALongNameLeavesTheRestOfTheRow(t *testing.T) {
	long := member(0, strings.Repeat("very-", 30)+"long")
	row := FleetRows([]Member{long}, Options{Now: now, Width: 60})[1]
	if !strings.Contains(row, "yes  yes") && !strings.Contains(row, "yes     yes") {
		t.Errorf("the row does not say whether the host is online and up to date: %q", row)
	}
}

func TestRowsDoNotChangeWithTime(t *testing.T) {
	a := FleetRows(fleet(), Options{Now: now})
	b := FleetRows(fleet(), Options{Now: now.Add(time.Hour), StaleAfter: time.Minute})
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("rows (-now +later):\n%s", diff)
	}
}

func TestHost(t *testing.T) {
	rollouts := []nfv1.Rollout{*rolloutInProgress()}
	for name, m := range map[string]Member{
		"host-up-to-date":  member(3*time.Second, "web-01"),
		"host-rolled-back": member(4*time.Second, "web-02", rolledBack),
		"host-fetching":    member(2*time.Second, "web-03", fetching),
		"host-offline":     member(2*time.Hour, "db-01", offline, asked),
		"host-new":         member(-1, "new-01", fresh),
		"host-hostile":     member(9*time.Second, "evil-01", hostile),
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Now: now, Width: 100}
			got := Host(m, rollouts, o)
			golden(t, name, got)
			if name == "host-hostile" {
				checkLines(t, got, Options{})
			}
		})
	}
}

func TestWhyHasNothingToSayOfAHostThatIsUpToDate(t *testing.T) {
	m := member(0, "web-01", func(h *nfv1.Host) { h.Labels = nil })
	if got := Why(m, []nfv1.Rollout{*rolloutInProgress()}, now); len(got) > 0 {
		t.Errorf("got %q", got)
	}
}

func TestWhy(t *testing.T) {
	older := rolloutInProgress()
	older.Name, older.UID, older.CreationTimestamp = "older", "older", ago(time.Hour)
	unrelated := rolloutInProgress()
	unrelated.Namespace = "elsewhere"
	done := rolloutInProgress()
	done.Name, done.UID, done.Status.Phase = "done", "done", nfv1.RolloutPhaseSucceeded
	rollouts := []nfv1.Rollout{*rolloutInProgress(), *older, *unrelated, *done}

	tests := map[string]struct {
		member   Member
		rollouts []nfv1.Rollout
		want     []string
	}{
		"maintenance": {
			member: member(-1, "web-01", fresh, func(h *nfv1.Host) { h.Spec.Lifecycle = nfv1.LifecycleMaintenance }),
			want:   []string{"Maintenance", "no rollout has assigned", "never been heard of"},
		},
		"restored backup": {
			member: member(0, "web-01", asked, func(h *nfv1.Host) { h.Status.ObservedRevision = 7 }),
			want:   []string{"has seen revision 7, and revision 2 is asked"},
		},
		"dropped": {
			member: member(0, "web-01", asked, func(h *nfv1.Host) { h.Spec.Desired.Intent = nfv1.IntentNone }),
			want:   []string{"nothing is asked of it"},
		},
		"waits for a reboot": {
			member: member(0, "web-01", fetching, func(h *nfv1.Host) { h.Status.Phase = nfv1.HostPhaseAwaitingReboot }),
			want:   []string{"next boot"},
		},
		"drifted": {
			member: member(0, "web-01", set(nfv1.ConditionUpToDate, metav1.ConditionFalse, "Drifted", ""),
				set(nfv1.ConditionDrifted, metav1.ConditionTrue, "Drifted", "somebody switched by hand")),
			want: []string{"runs something else now: somebody switched by hand"},
		},
		"asked and silent": {
			member: member(time.Hour, "web-01", asked, offline),
			want:   []string{"has not reported a start", "last heard of 60m ago"},
		},
		"an old report does not answer a new revision": {
			member: member(0, "web-01", asked),
			want:   []string{"was asked 2m ago to run release b"},
		},
		"waits for two rollouts": {
			member: member(0, "web-01"), rollouts: rollouts,
			want: []string{"rollout older is to move it to release b and has not assigned it yet: Progressing", "rollout to-b waits until rollout older"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := Why(tc.member, tc.rollouts, now)
			if len(got) != len(tc.want) {
				t.Fatalf("got %d reasons %q, want %d", len(got), got, len(tc.want))
			}
			for i, part := range tc.want {
				if !strings.Contains(got[i], part) {
					t.Errorf("reason %d is %q, want %q in it", i, got[i], part)
				}
			}
		})
	}
}

func rolloutInProgress() *nfv1.Rollout {
	return &nfv1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "to-b", UID: types.UID("to-b"), Generation: 1, CreationTimestamp: ago(10 * time.Minute)},
		Spec: nfv1.RolloutSpec{
			Release:  "b",
			Selector: &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"role": "web"}},
			Strategy: nfv1.RolloutStrategy{Type: nfv1.StrategyStaged, Waves: []nfv1.RolloutWave{{Name: "canary", SoakSeconds: 300}, {Name: "half", SoakSeconds: 600}, {Name: "rest"}}},
		},
		Status: nfv1.RolloutStatus{
			ObservedGeneration: 1, Phase: nfv1.RolloutPhaseProgressing, Message: "wave half: 2 of 3 hosts are in flight",
			WaveProgress: "2/3", HostProgress: "2/6",
			Hosts: &nfv1.HostCounts{Total: 6, Assigned: 4, Succeeded: 2, Deferred: 1, Unassigned: 1},
			Waves: []nfv1.WaveStatus{
				{Name: "canary", Size: 1, Assigned: 1, Succeeded: 1, StartedAt: ago(9 * time.Minute), FinishedAt: ago(8 * time.Minute), SoakedAt: ago(3 * time.Minute)},
				{Name: "half", Size: 3, Assigned: 3, InFlight: 2, Succeeded: 1, Threshold: 1, StartedAt: ago(3 * time.Minute)},
				{Name: "rest"},
			},
		},
	}
}

func TestRollout(t *testing.T) {
	soaking := rolloutInProgress()
	soaking.Status.Phase = nfv1.RolloutPhaseSoaking
	soaking.Status.Waves[1] = nfv1.WaveStatus{Name: "half", Size: 3, Assigned: 3, Succeeded: 3, Threshold: 1, StartedAt: ago(3 * time.Minute), FinishedAt: ago(time.Minute)}

	paused := rolloutInProgress()
	paused.Status.Phase = nfv1.RolloutPhasePaused
	paused.Status.Message = "wave canary: 1 of 1 failed > failureThreshold 0"
	paused.Status.Waves[0] = nfv1.WaveStatus{Name: "canary", Size: 1, Assigned: 1, Failed: 1, StartedAt: ago(3 * time.Minute)}
	paused.Status.Waves[1] = nfv1.WaveStatus{Name: "half"}
	paused.Status.Hosts = &nfv1.HostCounts{Total: 6, Assigned: 1, Failed: 1, Unassigned: 5}
	paused.Status.HostProgress = "0/6"
	paused.Status.Failures = []nfv1.HostFailure{{
		Host: "web-02", Wave: "canary", Reason: nfv1.ReasonHealthCheckFailed,
		Message: "health check \"service\" did not pass within 20s: exit status 1\x1b[2J: a text that is so long that it does not fit into any terminal",
	}}

	fresh := &nfv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "to-b", Generation: 1}, Spec: nfv1.RolloutSpec{Release: "b"}}
	fresh.Status.ObservedGeneration = -1

	changed := rolloutInProgress()
	changed.Generation = 2

	for name, tc := range map[string]struct {
		rollout *nfv1.Rollout
		options Options
	}{
		"rollout-progressing": {rolloutInProgress(), Options{}},
		"rollout-soaking":     {soaking, Options{}},
		"rollout-paused":      {paused, Options{}},
		"rollout-terminal":    {paused, Options{Width: 80, Color: true}},
		"rollout-40-columns":  {paused, Options{Width: 40}},
		"rollout-new":         {fresh, Options{}},
		"rollout-changed":     {changed, Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.options.Now = now
			got := Rollout(tc.rollout, tc.options)
			golden(t, name, got)
			checkLines(t, got, tc.options)
		})
	}
}

func TestRolloutLineSaysWhatChanged(t *testing.T) {
	r := rolloutInProgress()
	if got, want := RolloutLine(r), "Progressing, wave 2/3, hosts 2/6: wave half: 2 of 3 hosts are in flight"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.Status.Hosts.Failed = 1
	if got := RolloutLine(r); !strings.Contains(got, "1 failed") {
		t.Errorf("got %q, want the failure in it", got)
	}
}

func TestLastSeen(t *testing.T) {
	early, late := ago(time.Hour), ago(time.Minute)
	entry := func(manager string, at *metav1.Time) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Time: at}
	}
	lie := metav1.NewMicroTime(now.Add(1000 * time.Hour))
	tests := map[string]struct {
		lease *coordinationv1.Lease
		want  time.Time
	}{
		"no lease":       {nil, time.Time{}},
		"never renewed":  {lease(nil, entry(nfv1.FieldOwnerHost, &late)), time.Time{}},
		"renewed":        {lease(nil, entry(nfv1.FieldOwnerHost, &late), entry(nfv1.FieldOwnerAgent, &early)), early.Time},
		"clock is wrong": {lease(&lie, entry(nfv1.FieldOwnerAgent, &early)), early.Time},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := LastSeen(tc.lease); !got.Equal(tc.want) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func lease(renew *metav1.MicroTime, entries ...metav1.ManagedFieldsEntry) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{ManagedFields: entries}, Spec: coordinationv1.LeaseSpec{RenewTime: renew}}
}
