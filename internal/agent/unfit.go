// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// unfitPause is the time between two tries to end an attempt.
const unfitPause = 5 * time.Second

// runUnfit brings an open attempt to its end without the control plane, and answers why
// this agent does no more. An attempt is never committed by it: the next start of an agent
// that cannot read its configuration would be its last.
func (m *Machine) runUnfit(ctx context.Context, journal *JournalFile, why error) error {
	var err error
	if m.journal, err = journal.Read(); err != nil {
		return errors.Join(why, err)
	}
	if !m.unsettled() {
		return why
	}
	m.Log.Error("This agent cannot work with its configuration; it only ends the attempt that is open", "error", why)
	m.Reporter, m.host, m.unfit = mute{}, m.journal.Host, why
	for {
		m.expectStep()
		err := m.Notify.attend(m, func() error { return m.resume(ctx) })
		if err == nil && !m.unsettled() || ctx.Err() != nil {
			return errors.Join(why, ctx.Err())
		}
		m.Log.Error("End the open attempt; it is tried again", "error", err)
		if !m.pause(ctx, unfitPause) {
			return errors.Join(why, ctx.Err())
		}
	}
}

// mute is the Reporter of an agent that talks to nobody. What it has to say is in the
// journal, for the next one.
type mute struct{}

var _ Reporter = mute{}

// Report implements Reporter.
func (mute) Report(nfv1.HostStatus, bool) {}

// Amend implements Reporter.
func (mute) Amend(nfv1.HostStatus) {}

// Confirm implements Reporter.
func (mute) Confirm(context.Context, nfv1.HostStatus) error { return errMute }

var errMute = fmt.Errorf("this agent does not talk to the control plane")

// Reachable implements Reporter.
func (mute) Reachable() bool { return false }

// Event implements Reporter.
func (mute) Event(string, string, string) {}
