// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

func stamp(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }

// shorten cuts a text to at most n bytes, which is at most n characters.
func shorten(s string, n int) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-3], "") + "..."
}

func lastWords(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return "it said: " + shorten(last, 200)
	}
	return "it said nothing"
}

// record keeps the results of health checks with the revision and the system that they
// were taken under.
func (m *Machine) record(results []health.Result) {
	running, _, _ := m.Activator.Running() // without it the sample names no system and proves nothing
	before := map[string]nfv1.HealthCheckResult{}
	for _, r := range m.results {
		before[r.Name] = r
	}
	m.results = nil
	for _, r := range results {
		out := nfv1.HealthCheckResult{
			Name: r.Name, State: nfv1.HealthStateUnhealthy, Message: shorten(r.Message, 256),
			Revision: m.journal.ObservedRevision, StorePath: nfv1.StorePath(running), Since: stamp(m.Clock.Now()),
		}
		if r.Healthy {
			out.State, out.Message = nfv1.HealthStateHealthy, ""
		}
		if b := before[r.Name]; b.State == out.State && b.StorePath == out.StorePath {
			out.Since = b.Since
		}
		m.results = append(m.results, out)
	}
	if m.results == nil {
		m.results = []nfv1.HealthCheckResult{}
	}
	m.tell()
}

// maxResults is how many results of health checks a report has room for.
const maxResults = 64

// healthy reports whether the last samples are all good. No sample is not healthy.
func (m *Machine) healthy() bool { return m.results != nil && m.unhealthyMessage() == "" }

func (m *Machine) unhealthyMessage() string {
	var bad []string
	for _, r := range m.results {
		if r.State != nfv1.HealthStateHealthy {
			bad = append(bad, fmt.Sprintf("%s: %s", r.Name, r.Message))
		}
	}
	if len(bad) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d health checks failed: %s", len(bad), len(m.results), strings.Join(bad, "; "))
}

// report sends the status as it is now. Soon says that it may wait a moment for a
// better one: a step that takes no time is not reported on its own.
func (m *Machine) report(soon bool) {
	if m.host != nil {
		m.reported = m.status()
		m.Reporter.Report(m.reported, soon)
	}
	m.tell()
}

// status is the whole of what the agent has to say.
func (m *Machine) status() nfv1.HostStatus {
	s := nfv1.HostStatus{
		ObservedGeneration: m.host.Generation,
		ObservedRevision:   m.journal.ObservedRevision,
		Phase:              nfv1.HostPhaseIdle,
		History:            m.journal.History,
		HealthChecks:       m.results[:min(len(m.results), maxResults)],
		Fetch:              m.fetch.Load(),
		NodeInfo:           m.Info.DeepCopy(),
		Attempt:            m.journal.Last,
	}
	if o := m.journal.Open; o != nil {
		a := o.HostAttempt
		s.Phase = o.Step
		if !o.Correction { // which answers no order
			s.Attempt = &a
		}
	}
	m.observe(&s)
	m.conditions(&s)
	return s
}

// observe reads the three independent facts: what runs, what was booted, and what the
// profile names. What cannot be read is left out.
func (m *Machine) observe(s *nfv1.HostStatus) {
	if path, spec, err := m.Activator.Running(); err == nil && path != "" {
		s.Running = &nfv1.SystemGeneration{StorePath: nfv1.StorePath(path), Specialisation: spec, Label: shorten(m.Source.Label(path), 255)}
	}
	if path, err := m.Activator.Booted(); err == nil && path != "" {
		s.Booted = &nfv1.SystemGeneration{StorePath: nfv1.StorePath(path)}
	}
	if path, n, err := m.Profile.Current(context.Background()); err == nil && path != "" {
		s.Profile = &nfv1.SystemGeneration{StorePath: nfv1.StorePath(path), Generation: n}
		if s.Running != nil && s.Running.StorePath == s.Profile.StorePath {
			s.Running.Generation = n
		}
	}
}

// conditions sums the status up. Times of transition are kept by the control plane's
// stored conditions, which the watch brings back.
func (m *Machine) conditions(s *nfv1.HostStatus) {
	set := func(kind string, status metav1.ConditionStatus, reason, message string) {
		c := metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: shorten(message, 1024),
			ObservedGeneration: m.host.Generation, LastTransitionTime: stamp(m.Clock.Now()),
		}
		if old := meta.FindStatusCondition(m.host.Status.Conditions, kind); old != nil && old.Status == status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		meta.SetStatusCondition(&s.Conditions, c)
	}
	upToDate, why := m.upToDate(s)
	set(nfv1.ConditionUpToDate, upToDate, why, "")
	healthy := m.healthCondition(set)
	drift := m.drift(s)
	if s.Running != nil && m.journal.Good != "" && m.journal.Open == nil {
		drifted := metav1.ConditionFalse
		if drift != "" {
			drifted = metav1.ConditionTrue
		}
		set(nfv1.ConditionDrifted, drifted, "ComparedWithLastSuccess", drift)
	}
	m.diskAndBoot(s, set)
	last := m.journal.Last
	switch {
	case m.journal.Open != nil:
		message := fmt.Sprintf("revision %d is in phase %s", m.journal.Open.Revision, m.journal.Open.Step)
		if m.journal.Open.Correction {
			message = "drift is being corrected; " + message
		}
		if m.retrying != "" {
			message += "; " + m.retrying
		}
		set(nfv1.ConditionReady, metav1.ConditionUnknown, nfv1.ReasonAttemptInProgress, message)
		set(nfv1.ConditionReconciling, metav1.ConditionTrue, nfv1.ReasonAttemptInProgress, message)
	case last != nil && last.Outcome != nfv1.AttemptSucceeded && last.Revision == m.journal.ObservedRevision && upToDate != metav1.ConditionTrue:
		set(nfv1.ConditionReady, metav1.ConditionFalse, last.Reason, last.Message)
		set(nfv1.ConditionStalled, metav1.ConditionTrue, last.Reason, last.Message)
	case m.problem != "":
		set(nfv1.ConditionReady, metav1.ConditionFalse, nfv1.ReasonInternalError, m.problem)
		set(nfv1.ConditionStalled, metav1.ConditionTrue, nfv1.ReasonInternalError, m.problem)
	case healthy == metav1.ConditionFalse:
		set(nfv1.ConditionReady, metav1.ConditionFalse, nfv1.ReasonUnhealthy, m.unhealthyMessage())
		set(nfv1.ConditionStalled, metav1.ConditionTrue, nfv1.ReasonUnhealthy, m.unhealthyMessage())
	case m.host.Spec.Lifecycle == nfv1.LifecycleMaintenance:
		set(nfv1.ConditionReady, metav1.ConditionTrue, nfv1.ReasonLifecycle, "the host is in maintenance; nothing is carried out")
	case upToDate != metav1.ConditionTrue && drift != "":
		set(nfv1.ConditionReady, metav1.ConditionFalse, nfv1.ConditionDrifted, drift)
		set(nfv1.ConditionStalled, metav1.ConditionTrue, nfv1.ConditionDrifted, drift)
	case upToDate != metav1.ConditionTrue:
		message := fmt.Sprintf("revision %d is asked; the last that was taken up is %d", m.host.Spec.Desired.Revision, m.journal.ObservedRevision)
		set(nfv1.ConditionReady, metav1.ConditionUnknown, nfv1.ReasonAttemptInProgress, message)
		set(nfv1.ConditionReconciling, metav1.ConditionTrue, nfv1.ReasonAttemptInProgress, message)
	default:
		set(nfv1.ConditionReady, metav1.ConditionTrue, why, "")
	}
}

// diskAndBoot says whether the disk was too small for what is asked, and whether only a
// reboot puts all of the running system in place.
func (m *Machine) diskAndBoot(s *nfv1.HostStatus, set func(string, metav1.ConditionStatus, string, string)) {
	last := m.journal.Last
	if m.journal.Open == nil && last != nil && last.Reason == nfv1.ReasonDiskPressure && last.Revision == m.journal.ObservedRevision {
		set(nfv1.ConditionDiskPressure, metav1.ConditionTrue, nfv1.ReasonDiskPressure, last.Message)
	} else {
		set(nfv1.ConditionDiskPressure, metav1.ConditionFalse, "EnoughSpace", "")
	}
	if s.Running == nil || s.Booted == nil {
		return
	}
	if parts := m.Source.NeedsReboot(nix.StorePath(s.Booted.StorePath), nix.StorePath(s.Running.StorePath)); len(parts) > 0 {
		set(nfv1.ConditionRebootRequired, metav1.ConditionTrue, "BootPartsDiffer", "only a reboot puts in place: "+strings.Join(parts, ", "))
	} else {
		set(nfv1.ConditionRebootRequired, metav1.ConditionFalse, "BootPartsEqual", "")
	}
}

func (m *Machine) upToDate(s *nfv1.HostStatus) (metav1.ConditionStatus, string) {
	d := m.host.Spec.Desired
	switch {
	case d == nil || d.Intent == nfv1.IntentNone:
		return metav1.ConditionTrue, nfv1.ReasonNothingDesired
	case s.Running != nil && s.Profile != nil && s.Running.StorePath == d.StorePath && s.Profile.StorePath == d.StorePath && m.journal.Open == nil:
		return metav1.ConditionTrue, nfv1.ReasonUpToDate
	default:
		return metav1.ConditionFalse, "NotRunning"
	}
}

func (m *Machine) healthCondition(set func(string, metav1.ConditionStatus, string, string)) metav1.ConditionStatus {
	switch {
	case m.results == nil:
		set(nfv1.ConditionHealthy, metav1.ConditionUnknown, "NotChecked", "no health check has run yet")
		return metav1.ConditionUnknown
	case m.healthy():
		set(nfv1.ConditionHealthy, metav1.ConditionTrue, "ChecksPassed", fmt.Sprintf("%d health checks pass", len(m.results)))
		return metav1.ConditionTrue
	default:
		set(nfv1.ConditionHealthy, metav1.ConditionFalse, nfv1.ReasonHealthCheckFailed, m.unhealthyMessage())
		return metav1.ConditionFalse
	}
}

// rest looks at the running system while nothing is asked, and reports what changed.
func (m *Machine) rest(ctx context.Context) {
	if !m.look(ctx) {
		return
	}
	if now := m.status(); !sameFacts(m.reported, now) {
		m.notify(now)
		m.report(false)
	}
}

// look runs the health checks of the running system once. It answers false if there was
// nothing to look at.
func (m *Machine) look(ctx context.Context) bool {
	if m.host == nil || m.journal.Open != nil {
		return false
	}
	running, _, err := m.Activator.Running()
	if err != nil || running == "" {
		return false
	}
	checks, err := m.restChecks(running)
	if err != nil {
		m.record([]health.Result{{Name: "health-checks", Message: err.Error()}})
	} else {
		m.record(m.Prober.Once(ctx, checks))
	}
	return ctx.Err() == nil
}

// sameFacts reports whether two statuses say the same, whenever they say it.
func sameFacts(a, b nfv1.HostStatus) bool {
	return apiequality.Semantic.DeepEqual(timeless(a), timeless(b))
}

func timeless(s nfv1.HostStatus) nfv1.HostStatus {
	s = *s.DeepCopy()
	for i := range s.Conditions {
		s.Conditions[i].LastTransitionTime = metav1.Time{}
	}
	for i := range s.HealthChecks {
		s.HealthChecks[i].Since = metav1.Time{}
	}
	return s
}
