// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/bootloader"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// Machine carries out what a Host asks, one attempt at a time. Its methods are called
// from one goroutine, but for giveUp.
type Machine struct {
	// Activator, Profile, Source, Prober and Reporter are the machine's hands.
	Activator Activator
	Profile   nix.Profile
	Source    Source
	Prober    Prober
	Reporter  Reporter

	// BootEntry looks whether the machine boots a system by default.
	BootEntry func(nix.StorePath) bootloader.Finding

	// Store keeps the journal.
	Store interface{ Save(Journal) error }

	// Clock tells the time.
	Clock clock.WithTicker

	// BootID tells boots of the machine apart.
	BootID string

	// Base is what is the same in the plan of every attempt.
	Base attempt.Plan

	// DryRun says what would be activated and does not.
	DryRun bool

	// Notify and Metrics tell the host how the agent is; nil: nobody.
	Notify  *notifier
	Metrics *metrics

	// Info describes the machine in its reports.
	Info nfv1.NodeInfo

	// Log takes what an administrator of the host should find.
	Log *slog.Logger

	journal  Journal
	plan     *attempt.Plan // of the open attempt, once it is known
	host     *nfv1.Host
	fetch    atomic.Pointer[nfv1.FetchProgress]
	results  []nfv1.HealthCheckResult
	units    health.UnitWatch
	problem  string
	unfit    error // why this agent must not confirm anything
	retrying string
	reported nfv1.HostStatus

	mu           sync.Mutex
	cancelFetch  context.CancelFunc
	progressTold time.Time
	deadline     time.Time // when the step that is being taken has to be over
}

// errGivenUp ends a fetch for which a newer order came.
var errGivenUp = errors.New("something newer is asked")

// save writes the journal before a step is taken.
func (m *Machine) save() error {
	m.expectStep()
	m.tell()
	return m.Store.Save(m.journal)
}

// begin opens an attempt for the Host's current assignment. Nothing has been done when
// the journal cannot be written.
func (m *Machine) begin(h *nfv1.Host) error {
	d, before := h.Spec.Desired, m.journal
	if m.journal.HostUID != h.UID {
		m.journal = Journal{HostUID: h.UID, Good: m.journal.Good, Units: m.journal.Units, Attempts: m.journal.Attempts}
	}
	m.journal.ObservedRevision = d.Revision
	m.journal.Host = remembered(h)
	m.journal.Open = nil
	if d.Intent != nfv1.IntentNone {
		m.journal.Open = m.newAttempt(h, before)
	}
	if err := m.save(); err != nil {
		m.journal = before
		return err
	}
	return nil
}

// newAttempt is an attempt for the Host's assignment. If the same one was interrupted
// before it is counted on: a system that kills its agent again and again must not be
// tried for ever.
func (m *Machine) newAttempt(h *nfv1.Host, before Journal) *OpenAttempt {
	d, now := h.Spec.Desired, m.Clock.Now()
	o := &OpenAttempt{
		HostAttempt: nfv1.HostAttempt{Revision: d.Revision, StorePath: d.StorePath, StartedAt: stamp(now)},
		Step:        nfv1.HostPhaseFetching, Since: now,
		Timeout: seconds(h.Spec.Activation.ActivationTimeoutSeconds, defaultActivationTimeout),
	}
	if d.Rollout != nil {
		o.RolloutUID = d.Rollout.UID
	}
	if b := before.Open; b != nil && before.HostUID == h.UID && b.Revision == o.Revision && b.StorePath == o.StorePath {
		o.Interruptions, o.StartedAt, o.Phases = b.Interruptions, b.StartedAt, b.Phases
	}
	return o
}

// steps are the steps of an attempt that are journalled, in their order. An interruption
// in any of them is provided for in recoverFrom.
var steps = []nfv1.HostPhase{
	nfv1.HostPhaseFetching, nfv1.HostPhaseActivating, nfv1.HostPhaseVerifying,
	nfv1.HostPhaseConfirming, nfv1.HostPhaseCommitting, nfv1.HostPhaseRollingBack,
}

// unsettled reports whether an attempt has changed the host and has not come to its end.
func (m *Machine) unsettled() bool {
	return m.journal.Open != nil && m.journal.Open.Step != nfv1.HostPhaseFetching
}

const (
	defaultActivationTimeout = 600 * time.Second
	defaultConfirmTimeout    = 120 * time.Second
)

func seconds(n int32, otherwise time.Duration) time.Duration {
	if n <= 0 {
		return otherwise
	}
	return time.Duration(n) * time.Second
}

// move carries out the open attempt. A nil error means that it ended, one way or the
// other; an error means that it stands where the journal says.
func (m *Machine) move(ctx context.Context) error {
	d, open := m.host.Spec.Desired, m.journal.Open
	target := nix.StorePath(open.StorePath)
	m.Log.Info("Moving to a system", "revision", open.Revision, "storePath", target, "intent", d.Intent)
	m.report(true)
	if m.host.Spec.Activation.Mode == nfv1.ActivationModeBoot {
		return m.finish(ctx, nfv1.AttemptRefused, nfv1.ReasonUnsupported,
			"spec.activation.mode is Boot: this version of the agent can activate in the running system only")
	}
	if done, err := m.alreadyThere(ctx, target); done || err != nil {
		return err
	}
	if err := m.fetchSystem(ctx, target, d.Caches); err != nil {
		return m.fetchFailed(ctx, err)
	}
	if m.DryRun {
		return m.rehearse(ctx, target)
	}
	if done, err := m.activate(ctx, target); done || err != nil {
		return err
	}
	return m.prove(ctx, target)
}

// prove brings an activated system to its commit, or goes back.
func (m *Machine) prove(ctx context.Context, target nix.StorePath) error {
	if done, err := m.verify(ctx, target); done || err != nil {
		return err
	}
	if done, err := m.confirm(ctx); done || err != nil {
		return err
	}
	return m.commit(ctx, target)
}

// alreadyThere ends the attempt if the system runs, is committed and is healthy.
func (m *Machine) alreadyThere(ctx context.Context, target nix.StorePath) (bool, error) {
	if !m.runsHealthy(ctx, target) {
		return false, ctx.Err()
	}
	if profile, _, err := m.Profile.Current(ctx); err != nil || profile != target {
		return false, nil //nolint:nilerr // a profile that cannot be read is not this system; the commit sets it
	}
	if m.journal.Good != target {
		m.noteUnits(ctx, nil)
	}
	return true, m.finish(ctx, nfv1.AttemptSucceeded, nfv1.ReasonAlreadyRunning, "the system was running already")
}

// runsHealthy reports whether the system itself, no specialisation of it, runs and every
// health check passes.
func (m *Machine) runsHealthy(ctx context.Context, target nix.StorePath) bool {
	running, specialisation, err := m.Activator.Running()
	if err != nil || running != target || specialisation != "" {
		return false
	}
	checks, err := m.restChecks(target)
	if err != nil {
		return false // the ordinary way says what is wrong with the checks
	}
	m.record(m.Prober.Once(ctx, checks))
	return m.healthy() && ctx.Err() == nil
}

// fetchSystem brings the system into the store. It alone can be given up for a newer
// order: whatever comes after it is brought to its end first.
func (m *Machine) fetchSystem(ctx context.Context, target nix.StorePath, caches []nfv1.CacheURL) error {
	fctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.setCancelFetch(func() { cancel(errGivenUp) })
	m.fetch.Store(nil)
	m.Metrics.progress(0)
	err := m.Source.Fetch(fctx, target, caches, FetchNotes{Progress: m.progress, Retry: m.noteRetry})
	m.setCancelFetch(nil)
	if cause := context.Cause(fctx); cause != nil {
		return cause
	}
	return err
}

func (m *Machine) setCancelFetch(cancel context.CancelFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cancelFetch = cancel
}

// giveUp ends the fetch that is under way, if one is. It may be called at any time.
func (m *Machine) giveUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancelFetch != nil {
		m.cancelFetch()
	}
}

// progressEvery is how often the log tells how a long fetch goes.
const progressEvery = 30 * time.Second

// progress keeps how a fetch goes, for the next report. It is none by itself.
func (m *Machine) progress(p nix.FetchProgress) {
	m.mu.Lock()
	tell := m.Clock.Since(m.progressTold) >= progressEvery
	if tell {
		m.progressTold = m.Clock.Now()
	}
	m.mu.Unlock()
	if tell && p.BytesTotal > 0 {
		m.Log.Info("Fetching", "pathsDone", p.PathsDone, "pathsTotal", p.PathsTotal, "bytesDone", p.BytesDone, "bytesTotal", p.BytesTotal)
	}
	m.expect(fetchSilence)
	m.Metrics.progress(p.BytesDone)
	m.fetch.Store(&nfv1.FetchProgress{PathsDone: p.PathsDone, PathsTotal: p.PathsTotal, BytesDone: p.BytesDone, BytesTotal: p.BytesTotal})
}

// noteRetry tells people why a fetch takes long: with the report that the order was
// accepted if that has not left, and with an event, once an attempt.
func (m *Machine) noteRetry(err error) {
	m.expect(fetchSilence)
	first := m.retrying == ""
	m.retrying = "fetching is tried again: " + err.Error()
	if !first || m.host == nil {
		return
	}
	m.reported = m.status()
	m.Reporter.Amend(m.reported)
	m.Reporter.Event(corev1.EventTypeWarning, "FetchRetried", shorten(fmt.Sprintf("%s: %s", m.journal.Open.StorePath, m.retrying), 1000))
}

func (m *Machine) fetchFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, errGivenUp) {
		return err
	}
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return m.finish(ctx, nfv1.AttemptRefused, refusal.Reason, refusal.Error())
	}
	return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonFetchFailed, err.Error())
}

// id names the attempt in the names of units and logs.
func (m *Machine) id() string { return strconv.FormatInt(m.journal.Open.Number, 10) }
