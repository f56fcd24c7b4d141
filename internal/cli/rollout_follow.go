// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/cli/view"
)

// errStopWaiting is the cause of a context whose --wait-timeout is over.
var errStopWaiting = errors.New("the time to wait is over")

// follow shows a rollout as it changes, until it has ended or, with --wait, needs a
// person.
func (o *rolloutOptions) follow(ctx context.Context, only source, uid types.UID, out *screen) error {
	if o.timeout > 0 {
		timed, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		timer := o.streams.Clock.NewTimer(o.timeout)
		defer timer.Stop()
		go func() {
			select {
			case <-timer.C():
				cancel(errStopWaiting)
			case <-timed.Done():
			}
		}()
		ctx = timed
	}
	f, err := follow(ctx, o.streams.ErrOut, out.terminal(), only)
	if err != nil {
		return o.stopped(ctx, err, nil)
	}
	w := &rolloutWatch{o: o, out: out, feed: f, uid: uid}
	ticker := o.streams.Clock.NewTicker(frameInterval)
	defer ticker.Stop()
	for {
		done, err := w.show(objects[nfv1.Rollout](f.stores[0]))
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return o.stopped(ctx, context.Cause(ctx), w.last)
		case <-f.changed:
		case <-ticker.C():
		}
	}
}

// stopped is the result of a wait that was cut short. To interrupt --watch is the way to
// leave it.
func (o *rolloutOptions) stopped(ctx context.Context, err error, last *nfv1.Rollout) error {
	if ctx.Err() == nil {
		return err
	}
	if !o.wait {
		return nil
	}
	why := "interrupted"
	if errors.Is(context.Cause(ctx), errStopWaiting) {
		why = fmt.Sprintf("not finished after %s", o.timeout)
	}
	state := "its state is not known"
	if last != nil {
		state = view.RolloutLine(last)
	}
	return codef(ExitStoppedWaiting, "stopped waiting for rollout %s: %s (%s). The rollout itself goes on; to wait again: kubectl nixfleet rollout status %s --wait",
		o.name, why, state, o.name)
}

// rolloutWatch shows one rollout and judges whether there is more to come.
type rolloutWatch struct {
	o    *rolloutOptions
	out  *screen
	feed *feed
	uid  types.UID
	last *nfv1.Rollout
	line string
}

func (w *rolloutWatch) show(found []*nfv1.Rollout) (done bool, err error) {
	var r *nfv1.Rollout
	for _, candidate := range found {
		if candidate.UID == w.uid {
			r = candidate
		}
	}
	if r == nil {
		return true, codef(ExitFailed, "rollout %s was deleted", w.o.name)
	}
	w.last = r
	if err := w.print(r); err != nil {
		return true, err
	}
	done, result := verdict(r, w.o.wait)
	if !done {
		return false, nil
	}
	if !w.out.terminal() {
		// The lines said what happened; the end says it whole.
		if err := write(w.o.streams.Out, "\n"+view.Rollout(r, w.o.view(0))); err != nil {
			return true, err
		}
	}
	return true, result
}

func (w *rolloutWatch) print(r *nfv1.Rollout) error {
	if w.out.terminal() {
		v := w.o.view(w.out.width())
		return w.out.draw(view.Rollout(r, v) + view.Note(w.feed.note(), v))
	}
	line := view.RolloutLine(r)
	if line == w.line {
		return nil
	}
	w.line = line
	return write(w.o.streams.Out, w.o.streams.Clock.Now().Format("15:04:05")+"  "+line+"\n")
}

// verdict says whether a rollout has ended or, if that is asked for, needs a person, and
// with what result. A status that does not answer the latest spec says nothing: a paused
// rollout that was just resumed is not paused.
func verdict(r *nfv1.Rollout, needsPerson bool) (done bool, result error) {
	if r.Status.ObservedGeneration != r.Generation {
		return false, nil
	}
	phase := r.Status.Phase
	switch {
	case phase == nfv1.RolloutPhaseSucceeded:
		return true, nil
	case phase.Finished():
		return true, codef(ExitFailed, "rollout %s: %s", r.Name, view.RolloutLine(r))
	case !needsPerson:
		return false, nil
	case phase == nfv1.RolloutPhasePaused:
		return true, codef(ExitNeedsPerson, "rollout %s: %s\n%s", r.Name, view.RolloutLine(r), resumeHint(r))
	case phase == nfv1.RolloutPhaseAwaitingApproval:
		return true, codef(ExitNeedsPerson, "rollout %s: %s", r.Name, view.RolloutLine(r))
	default:
		return false, nil
	}
}

func resumeHint(r *nfv1.Rollout) string {
	if r.Spec.State == nfv1.RolloutStatePaused {
		return fmt.Sprintf("to go on: kubectl patch rollouts.nixfleet.io %s -n %s --type merge -p '{\"spec\":{\"state\":\"Running\"}}'", r.Name, r.Namespace)
	}
	return fmt.Sprintf("to try the failed hosts again and go on: kubectl patch rollouts.nixfleet.io %s -n %s --type merge -p '{\"spec\":{\"attempt\":%d}}'",
		r.Name, r.Namespace, max(r.Spec.Attempt, 1)+1)
}
