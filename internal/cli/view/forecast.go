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
	"github.com/nixfleet/nixfleet/internal/rollout/preview"
)

const (
	// mostNames and mostBatches are how much of a long list is shown unless Wide.
	mostNames   = 24
	mostBatches = 12
)

// Forecast returns what a rollout would do: the waves and their numbers, the hosts in
// their order, who stays where he is, and where it ends.
func Forecast(f *preview.Forecast, o Options) string {
	p := page{o: o}
	p.line(bold.paint("rollout "+clean(f.Name), o.Color) + gap + "release " + clean(f.Release) + gap + dim.paint("(a preview: nothing was changed)", o.Color))
	p.field("Now", string(f.Now.Phase)+sentence(f.Now.Message))
	if len(f.Waves) > 0 {
		p.line("\n" + strings.TrimSuffix(forecastTable(f, o), "\n"))
	}
	for i := range f.Waves {
		p.waveHosts(&f.Waves[i])
	}
	p.names("Sent back, in this order", f.SentBack)
	p.names("Offline: assigned after the last wave, moved when they return", f.Late)
	p.kept(f.Kept)
	p.line("")
	p.field("End", endText(f))
	p.field("Assumed", strings.Join(append([]string{"every host succeeds at once"}, f.Assumed...), "; "))
	if f.Order == preview.OrderDrawn {
		p.field("Order", "drawn when the Rollout is created. To see it before anything moves, create the Rollout with state: Paused, then plan this file with state: Running")
	}
	return p.String()
}

func endText(f *preview.Forecast) string {
	if f.Truncated {
		return "not played to the end: too many steps"
	}
	text := string(f.End.Phase) + sentence(f.End.Message)
	if f.WaitSeconds > 0 {
		text += fmt.Sprintf("; not before all soaks are over, which take %s", age(time.Duration(f.WaitSeconds)*time.Second))
	}
	return text
}

func forecastTable(f *preview.Forecast, o Options) string {
	t := table{columns: []column{{"WAVE", 0}, {"HOSTS", 0}, {"AT ONCE", 2}, {"MAY FAIL", 3}, {"SOAK", 1}, {"APPROVAL", 1}}}
	for i := range f.Waves {
		w := &f.Waves[i]
		soak := none
		if w.SoakSeconds > 0 {
			soak = age(time.Duration(w.SoakSeconds) * time.Second)
		}
		approval := cell{strings.ToLower(string(w.Approval)), plain}
		switch w.Approval {
		case preview.ApprovalNeeded:
			approval.style = yellow
		case preview.ApprovalNone:
			approval.text = none
		}
		if !w.Reached {
			t.add(cell{clean(w.Name), plain}, cell{"not reached", yellow}, cell{none, plain}, cell{none, plain}, cell{soak, plain}, approval)
			continue
		}
		t.add(cell{clean(w.Name), plain}, number(w.Size), number(min(w.MaxUnavailable, w.Size)), number(w.Threshold), cell{soak, plain}, approval)
	}
	return t.render(o)
}

// waveHosts writes the hosts of a wave, a line for those that are assigned at once.
func (p *page) waveHosts(w *preview.Wave) {
	if !w.Reached {
		return
	}
	title := "Wave " + clean(w.Name)
	if len(w.Moved) > 0 {
		p.names(title+", assigned already", w.Moved)
	}
	switch {
	case len(w.Batches) == 1:
		p.names(title, w.Batches[0])
	case len(w.Batches) > 1:
		p.line("\n" + dim.paint(title+", one line after the other", p.o.Color))
		for i, batch := range w.Batches {
			if i == mostBatches && !p.o.Wide {
				p.line(fmt.Sprintf("  … and %d more lines (-o wide shows all)", len(w.Batches)-i))
				break
			}
			p.line(indented(fmt.Sprintf("  %3d  ", i+1), p.sample(batch), p.o.Width))
		}
	case len(w.Candidates) > 0:
		p.names(fmt.Sprintf("%s, %d drawn of", title, w.Size), w.Candidates)
	}
}

func (p *page) names(title string, names []string) {
	if len(names) == 0 {
		return
	}
	p.line("\n" + dim.paint(title, p.o.Color))
	p.line(indented("  ", p.sample(names), p.o.Width))
}

// sample is a list of names, cut off unless everything is asked for.
func (p *page) sample(names []string) string {
	if p.o.Wide || len(names) <= mostNames {
		return clean(strings.Join(names, " "))
	}
	return clean(strings.Join(names[:mostNames], " ")) + fmt.Sprintf(" … and %d more (-o wide shows all)", len(names)-mostNames)
}

func (p *page) kept(kept []preview.Kept) {
	if len(kept) == 0 {
		return
	}
	p.line("\n" + dim.paint("Not moved", p.o.Color))
	for i, k := range kept {
		if i == mostNames && !p.o.Wide {
			p.line(fmt.Sprintf("  … and %d more (-o wide shows all)", len(kept)-i))
			return
		}
		p.line(indented("  ", clean(k.Host+": "+strings.TrimPrefix(k.Message, "kept out: ")), p.o.Width))
	}
}

// Answer returns what a rollout does with a host, and why.
func Answer(a *preview.Answer, m Member, o Options) string {
	p := page{o: o}
	p.line(bold.paint("rollout "+clean(a.Rollout), o.Color) + gap + "host " + clean(a.Host) + gap + movesText(a))
	for _, r := range a.Reasons {
		p.field("Why", r.Reason+sentence(r.Message))
	}
	if a.Moves == preview.MovesAssigned {
		for _, text := range assignmentReasons(m, o.Now) {
			p.field("Host", text)
		}
	}
	if a.Place != nil {
		p.field("Place", placeText(a.Place))
	}
	if !slices.Contains(a.Reasons, preview.Reason{Reason: a.Now.Reason, Message: a.Now.Message}) {
		p.field("Rollout", string(cmp.Or(a.Now.Phase, nfv1.RolloutPhasePending))+sentence(a.Now.Message))
	}
	return p.String()
}

func movesText(a *preview.Answer) string {
	switch a.Moves {
	case preview.MovesNotSelected:
		return "is none of its targets"
	case preview.MovesNever:
		return "is kept out"
	case preview.MovesNow:
		return "may move now"
	case preview.MovesAssigned:
		return "is assigned"
	default:
		return "waits"
	}
}

// placeText says where the host comes, if every host before it succeeds.
func placeText(pl *preview.Place) string {
	after := "first of all"
	if pl.Before > 0 {
		after = fmt.Sprintf("after %d other hosts", pl.Before)
		if pl.Before == 1 {
			after = "after 1 other host"
		}
	}
	switch {
	case pl.Wave == "":
		return "after the last wave, when the host returns; " + after
	case pl.Batches > 1:
		return fmt.Sprintf("wave %s, batch %d of %d, %s", pl.Wave, pl.Batch, pl.Batches, after)
	default:
		return fmt.Sprintf("wave %s, %s", pl.Wave, after)
	}
}
