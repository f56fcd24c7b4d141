// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Host returns everything about one host: what it runs and is asked to run, why it does
// not if it does not, its health checks and its last attempts. The rollouts are those of
// its namespace.
func Host(m Member, rollouts []nfv1.Rollout, o Options) string {
	p := page{o: o}
	h := m.Host
	p.line(bold.paint(clean(h.Namespace+"/"+h.Name), o.Color))
	p.field("Platform", string(h.Spec.Platform)+", "+string(h.Spec.Lifecycle))
	p.cellField("Phase", phaseText(h))
	online := onlineCell(h)
	online.text += ", last seen " + lastSeenCell(m, o).text
	p.cellField("Online", online)
	p.cellField("Healthy", healthyCell(h))
	p.system("Running", h.Status.Running)
	p.system("Booted", h.Status.Booted)
	p.system("Profile", h.Status.Profile)
	p.desired(h)
	p.cellField("Up to date", upToDateCell(h))
	for i, reason := range Why(m, rollouts, o.Now) {
		p.field(pick(i == 0, "Why", ""), reason)
	}
	for _, kind := range []string{nfv1.ConditionRebootRequired, nfv1.ConditionDrifted, nfv1.ConditionDiskPressure} {
		if c := condition(h, kind); c != nil && c.Status == metav1.ConditionTrue {
			p.cellField(kind, cell{cmp.Or(clean(c.Message), yes), yellow})
		}
	}
	p.fetch(h.Status.Fetch)
	p.agent(h.Status.NodeInfo)
	p.checks(h)
	p.attempts(h)
	return p.String()
}

// page collects the lines of a description.
type page struct {
	strings.Builder

	o Options
}

const labelWidth = 16

func (p *page) line(s string) { p.WriteString(s + "\n") }

// field writes a label and a text that may go on in the next lines.
func (p *page) field(label, text string) { p.cellField(label, cell{text, plain}) }

func (p *page) cellField(label string, c cell) {
	if label != "" {
		label += ":"
	}
	text := clean(c.text)
	if c.style == plain {
		p.line(indented(pad(label, labelWidth), text, p.o.Width))
		return
	}
	for line := range strings.SplitSeq(indented(pad(label, labelWidth), text, p.o.Width), "\n") {
		p.line(line[:labelWidth] + c.style.paint(line[labelWidth:], p.o.Color))
	}
}

func phaseText(h *nfv1.Host) cell {
	c := phaseCell(h)
	if r := condition(h, nfv1.ConditionReady); r != nil && r.Message != "" {
		c.text += ": " + r.Message
	}
	return c
}

func (p *page) system(label string, s *nfv1.SystemGeneration) {
	if s == nil {
		p.field(label, none)
		return
	}
	text := string(s.StorePath)
	var notes []string
	if s.Generation > 0 {
		notes = append(notes, fmt.Sprintf("generation %d", s.Generation))
	}
	if s.Label != "" {
		notes = append(notes, s.Label)
	}
	if s.Specialisation != "" {
		notes = append(notes, "specialisation "+s.Specialisation)
	}
	if s.ConfigurationRevision != "" {
		notes = append(notes, "configuration "+s.ConfigurationRevision)
	}
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, ", ") + ")"
	}
	p.field(label, text)
}

func (p *page) desired(h *nfv1.Host) {
	d := h.Spec.Desired
	if d == nil {
		p.field("Desired", none)
		return
	}
	p.field("Desired", cmp.Or(string(d.StorePath), none))
	text := fmt.Sprintf("%s, revision %d, assigned %s ago", d.Intent, d.Revision, age(p.o.Now.Sub(d.AssignedTime.Time)))
	if d.Release != nil {
		text += ", release " + d.Release.Name
	}
	if d.Rollout != nil {
		text += ", rollout " + d.Rollout.Name
	}
	if d.Wave != "" {
		text += ", wave " + d.Wave
	}
	p.field("", text)
}

func (p *page) fetch(f *nfv1.FetchProgress) {
	if f == nil {
		return
	}
	p.field("Fetched", fmt.Sprintf("%d of %d paths, %s of %s", f.PathsDone, f.PathsTotal, bytes(f.BytesDone), bytes(f.BytesTotal)))
}

func (p *page) agent(n *nfv1.NodeInfo) {
	if n == nil {
		return
	}
	var parts []string
	for _, part := range []struct{ label, value string }{
		{"", n.AgentVersion}, {"Nix ", n.NixVersion}, {"kernel ", n.KernelVersion}, {"boot loader ", n.BootLoader},
	} {
		if part.value != "" {
			parts = append(parts, part.label+part.value)
		}
	}
	if len(parts) > 0 {
		p.field("Agent", strings.Join(parts, ", "))
	}
}

func (p *page) checks(h *nfv1.Host) {
	if len(h.Status.HealthChecks) == 0 {
		return
	}
	t := table{columns: []column{{"HEALTH CHECK", 0}, {"STATE", 0}, {"SINCE", 2}, {"MESSAGE", 1}}}
	for _, c := range h.Status.HealthChecks {
		s := green
		switch c.State {
		case nfv1.HealthStateUnhealthy:
			s = red
		case nfv1.HealthStateUnknown:
			s = yellow
		}
		t.add(cell{clean(c.Name), plain}, cell{clean(string(c.State)), s}, cell{since(c.Since.Time, p.o.Now), plain}, cell{clean(c.Message), plain})
	}
	p.line("\n" + strings.TrimSuffix(t.render(p.o), "\n"))
}

// attempts lists the attempt in progress, if there is one, and the ended ones.
func (p *page) attempts(h *nfv1.Host) {
	attempts := slices.Clone(h.Status.History)
	if a := h.Status.Attempt; a != nil && !slices.ContainsFunc(attempts, func(b nfv1.HostAttempt) bool { return sameAttempt(*a, b) }) {
		attempts = slices.Insert(attempts, 0, *a)
	}
	if len(attempts) == 0 {
		return
	}
	t := table{columns: []column{
		{"ATTEMPT", 0}, {"OUTCOME", 0}, {"STORE PATH", 3}, {"ENDED", 2}, {"TOOK", 4}, {"REASON", 0}, {"MESSAGE", 1},
	}}
	for _, a := range attempts {
		outcome := cell{"in progress", yellow}
		switch a.Outcome {
		case nfv1.AttemptSucceeded:
			outcome = cell{string(a.Outcome), green}
		case nfv1.AttemptRolledBack, nfv1.AttemptFailed, nfv1.AttemptRefused:
			outcome = cell{string(a.Outcome), red}
		}
		took := none
		if !a.FinishedAt.IsZero() && !a.StartedAt.IsZero() {
			took = age(a.FinishedAt.Sub(a.StartedAt.Time))
		}
		t.add(cell{fmt.Sprintf("%d", a.Revision), plain}, outcome, cell{shortHash(string(a.StorePath)), plain},
			cell{since(a.FinishedAt.Time, p.o.Now), plain}, cell{took, plain},
			cell{cmp.Or(clean(a.Reason), none), plain}, cell{clean(a.Message), plain})
	}
	p.line("\n" + strings.TrimSuffix(t.render(p.o), "\n"))
}

func sameAttempt(a, b nfv1.HostAttempt) bool {
	return a.Revision == b.Revision && a.StorePath == b.StorePath && a.RolloutUID == b.RolloutUID
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return none
	}
	return age(now.Sub(t)) + " ago"
}

func pick[T any](condition bool, a, b T) T {
	if condition {
		return a
	}
	return b
}

// bytes is a number of bytes for people, in powers of 1024.
func bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, exponent := float64(n)/unit, 0
	for ; value >= unit && exponent < 4; exponent++ {
		value /= unit
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[exponent])
}
