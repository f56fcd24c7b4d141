// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package view

import (
	"fmt"
	"testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
	"github.com/nixfleet/nixfleet/internal/rollout/preview"
)

func hostNames(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("web-%02d", i))
	}
	return out
}

func forecast() *preview.Forecast {
	return &preview.Forecast{
		Namespace: "fleet", Name: "to-b", Release: "b", Order: preview.OrderKnown, WaitSeconds: 301,
		Now: preview.Standing{Phase: nfv1.RolloutPhaseProgressing, Reason: rollout.ReasonProgressing, Message: "wave canary: 0 of 1 succeeded, 1 in flight"},
		Waves: []preview.Wave{
			{Name: "canary", Reached: true, Size: 1, MaxUnavailable: 1, SoakSeconds: 300, Approval: preview.ApprovalNone, Batches: [][]string{{"web-07"}}},
			{
				Name: "rest", Reached: true, Size: 5, MaxUnavailable: 2, Threshold: 1, Approval: preview.ApprovalNeeded, Moved: []string{"web-00"},
				Batches: [][]string{hostNames(1, 3), hostNames(3, 5)},
			},
		},
		Late:    []string{"laptop-1"},
		Kept:    []preview.Kept{{Host: "db-01", Reason: rollout.ReasonLifecycle, Message: "kept out: its lifecycle is Maintenance"}},
		Assumed: []string{"somebody approves wave rest"},
		End:     preview.Standing{Phase: nfv1.RolloutPhaseSucceeded, Reason: rollout.ReasonSucceeded, Message: "6 of 6 hosts run release b"},
	}
}

func TestForecast(t *testing.T) {
	drawn := forecast()
	drawn.Order = preview.OrderDrawn
	drawn.Waves[0].Batches, drawn.Waves[0].Candidates = nil, hostNames(0, 6)
	drawn.Waves[1].Batches, drawn.Waves[1].Candidates = nil, hostNames(0, 5)
	long := forecast()
	long.Waves = long.Waves[1:]
	long.Waves[0].Batches = nil
	for i := range 20 {
		long.Waves[0].Batches = append(long.Waves[0].Batches, hostNames(i*40, i*40+40))
	}
	stuck := forecast()
	stuck.Waves[1] = preview.Wave{Name: "rest", SoakSeconds: 60, Approval: preview.ApprovalGiven}
	stuck.Late, stuck.Kept, stuck.Assumed, stuck.WaitSeconds = nil, nil, nil, 0
	stuck.End = preview.Standing{
		Phase: nfv1.RolloutPhaseBlocked, Reason: rollout.ReasonEmptyWave,
		Message: "wave rest: its selector matches none of the rollout's targets; label a host, or cancel and correct the selector",
	}
	hostile := forecast()
	hostile.Name, hostile.Kept[0].Host, hostile.Waves[0].Batches[0][0] = "a\x1b[2J", "b\nc", "d\x07"
	tests := map[string]struct {
		f *preview.Forecast
		o Options
	}{
		"known":    {forecast(), Options{}},
		"terminal": {forecast(), Options{Width: 60, Color: true}},
		"drawn":    {drawn, Options{Width: 80}},
		"long":     {long, Options{Width: 80}},
		"stuck":    {stuck, Options{Width: 80}},
		"hostile":  {hostile, Options{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.o.Now = now
			golden(t, "forecast-"+name, Forecast(tc.f, tc.o))
		})
	}
}

func TestAnswer(t *testing.T) {
	moving := preview.Standing{Phase: nfv1.RolloutPhaseProgressing, Reason: rollout.ReasonProgressing, Message: "wave canary: 0 of 1 succeeded, 1 in flight"}
	answer := func(moves preview.Moves, place *preview.Place, reasons ...preview.Reason) preview.Answer {
		return preview.Answer{Namespace: "fleet", Rollout: "to-b", Host: "web-01", Moves: moves, Place: place, Reasons: reasons, Now: moving}
	}
	tests := map[string]preview.Answer{
		"waits": answer(preview.MovesLater, &preview.Place{Wave: "rest", Batch: 2, Batches: 3, Before: 4},
			preview.Reason{Reason: rollout.ReasonProgressing, Message: moving.Message}),
		"now":          answer(preview.MovesNow, &preview.Place{Wave: "canary", Batch: 1, Batches: 1}),
		"not-selected": answer(preview.MovesNotSelected, nil, preview.Reason{Reason: rollout.ReasonNotSelected, Message: "the rollout neither names the host in spec.hosts nor selects its labels"}),
		"kept-out":     answer(preview.MovesNever, nil, preview.Reason{Reason: rollout.ReasonLifecycle, Message: "kept out: its lifecycle is Maintenance"}),
		"assigned":     answer(preview.MovesAssigned, nil, preview.Reason{Reason: rollout.ReasonProgressing, Message: moving.Message}),
		"late":         answer(preview.MovesLater, &preview.Place{Before: 1}, preview.Reason{Reason: rollout.ReasonOffline, Message: "offline; it is assigned when it returns"}),
	}
	for name, a := range tests {
		t.Run(name, func(t *testing.T) {
			h := host("web-01")
			if a.Moves == preview.MovesAssigned {
				h.Spec.Desired = &nfv1.Desired{Revision: 9, Intent: nfv1.IntentDeploy, StorePath: pathB, AssignedTime: ago(0), Release: &nfv1.ObjectReference{Name: "b"}}
			}
			golden(t, "answer-"+name, Answer(&a, Member{Host: h, LastSeen: now}, Options{Now: now, Width: 80}))
		})
	}
}
