// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Rollout returns a rollout's state: one line at the head, the message, its waves, the
// failures with their reasons.
func Rollout(r *nfv1.Rollout, o Options) string {
	p := page{o: o}
	p.line(head(r, o))
	if r.Status.Message != "" {
		p.line(indented("  ", clean(r.Status.Message), o.Width))
	}
	if counts := countsText(r); counts != "" {
		p.line(indented("  ", counts, o.Width))
	}
	if len(r.Status.Waves) > 0 {
		p.line("\n" + strings.TrimSuffix(waveTable(r, o), "\n"))
	}
	if len(r.Status.Failures) > 0 {
		p.failures(r.Status.Failures)
	}
	return p.String()
}

// head is the first line. It is cut to the width before it is colored.
func head(r *nfv1.Rollout, o Options) string {
	name := clean(r.Name)
	if o.Namespaces {
		name = clean(r.Namespace) + "/" + name
	}
	parts := []cell{{"rollout " + name, bold}, {"release " + clean(r.Spec.Release), plain}, {phaseOf(r), phaseStyle(r)}}
	if r.Status.WaveProgress != "" {
		parts = append(parts, cell{"wave " + clean(r.Status.WaveProgress), plain})
	}
	if r.Status.HostProgress != "" {
		parts = append(parts, cell{"hosts " + clean(r.Status.HostProgress), plain})
	}
	var texts []string
	used := 0
	for _, c := range parts {
		text := c.text
		if o.Width > 0 {
			if used >= o.Width {
				break
			}
			text = cut(text, o.Width-used)
		}
		used += textWidth(text) + len(gap)
		texts = append(texts, c.style.paint(text, o.Color))
	}
	return strings.Join(texts, gap)
}

// phaseOf is the phase for people: a status that does not answer the spec yet says
// nothing about it.
func phaseOf(r *nfv1.Rollout) string {
	if r.Status.ObservedGeneration != r.Generation && r.Status.Phase != "" {
		return clean(string(r.Status.Phase)) + " (spec changed)"
	}
	return clean(cmp.Or(string(r.Status.Phase), string(nfv1.RolloutPhasePending)))
}

func phaseStyle(r *nfv1.Rollout) style {
	switch r.Status.Phase {
	case nfv1.RolloutPhaseSucceeded:
		return green
	case nfv1.RolloutPhaseFailed, nfv1.RolloutPhaseReverted, nfv1.RolloutPhaseReverting, nfv1.RolloutPhaseCancelled:
		return red
	case nfv1.RolloutPhasePaused, nfv1.RolloutPhaseBlocked, nfv1.RolloutPhaseAwaitingApproval, nfv1.RolloutPhaseCancelling:
		return yellow
	default:
		return plain
	}
}

// countsText names the counts that the waves do not show.
func countsText(r *nfv1.Rollout) string {
	c := r.Status.Hosts
	if c == nil {
		return ""
	}
	var parts []string
	for _, p := range []struct {
		n    int32
		text string
	}{{c.Deferred, "offline, moved when they return"}, {c.Skipped, "skipped"}, {c.Unassigned, "still to be assigned"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	return strings.Join(parts, "; ")
}

func waveTable(r *nfv1.Rollout, o Options) string {
	t := table{columns: []column{
		{"WAVE", 0}, {"STATE", 0}, {"SIZE", 3}, {"ASSIGNED", 5}, {"IN-FLIGHT", 4}, {"SUCCEEDED", 1}, {"FAILED", 1}, {"THRESHOLD", 6}, {"SOAK-LEFT", 2},
	}}
	for i := range r.Status.Waves {
		w := &r.Status.Waves[i]
		failed := cell{fmt.Sprint(w.Failed), plain}
		if w.Failed > 0 {
			failed.style = red
		}
		state := waveState(r, w)
		if w.StartedAt.IsZero() {
			t.add(append([]cell{{clean(w.Name), plain}, state}, slices.Repeat([]cell{{none, plain}}, len(t.columns)-2)...)...)
			continue
		}
		t.add(cell{clean(w.Name), plain}, state, number(w.Size), number(w.Assigned), number(w.InFlight), number(w.Succeeded), failed,
			number(w.Threshold), cell{soakLeft(r, w, o.Now), plain})
	}
	return t.render(o)
}

func number(n int32) cell { return cell{fmt.Sprint(n), plain} }

func waveState(r *nfv1.Rollout, w *nfv1.WaveStatus) cell {
	switch {
	case w.StartedAt.IsZero():
		return cell{"waiting", dim}
	case w.Failed > w.Threshold:
		return cell{"failed", red}
	case !w.SoakedAt.IsZero():
		return cell{"done", green}
	case !w.FinishedAt.IsZero() && r.Status.Phase == nfv1.RolloutPhaseSucceeded:
		return cell{"done", green}
	case !w.FinishedAt.IsZero():
		return cell{"soaking", yellow}
	default:
		return cell{"moving", yellow}
	}
}

// soakLeft is how long the wave still has to stay healthy.
func soakLeft(r *nfv1.Rollout, w *nfv1.WaveStatus, now time.Time) string {
	if w.FinishedAt.IsZero() || !w.SoakedAt.IsZero() || r.Status.Phase.Finished() {
		return none
	}
	for _, spec := range r.Spec.Strategy.Waves {
		if spec.Name == w.Name && spec.SoakSeconds > 0 {
			return age(w.FinishedAt.Add(time.Duration(spec.SoakSeconds) * time.Second).Sub(now))
		}
	}
	return none
}

// failures are not a table: their messages are long and are what one has to read.
func (p *page) failures(failures []nfv1.HostFailure) {
	p.line("\n" + dim.paint("FAILED HOSTS", p.o.Color))
	for _, f := range failures {
		where := ""
		if f.Wave != "" {
			where = " (" + clean(f.Wave) + ")"
		}
		p.line(indented("", clean(string(f.Host))+where+": "+clean(f.Reason)+sentence(clean(f.Message)), p.o.Width))
	}
}

// RolloutLine returns the state of a rollout in one line, for output that only grows. It
// does not depend on the time, so that equal lines mean that nothing has changed.
func RolloutLine(r *nfv1.Rollout) string {
	parts := []string{phaseOf(r)}
	if r.Status.WaveProgress != "" {
		parts = append(parts, "wave "+clean(r.Status.WaveProgress))
	}
	if r.Status.HostProgress != "" {
		parts = append(parts, "hosts "+clean(r.Status.HostProgress))
	}
	if c := r.Status.Hosts; c != nil && c.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", c.Failed))
	}
	line := strings.Join(parts, ", ")
	if r.Status.Message != "" {
		line += ": " + clean(r.Status.Message)
	}
	return line
}
