// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// notifier tells systemd how the agent is. Without systemd, or where the unit does not ask,
// it says nothing.
type notifier struct {
	send  func(state string) (bool, error)
	every time.Duration // between two signs of life; 0: nobody waits for them
	clock clock.WithTicker
	log   *slog.Logger

	mu   sync.Mutex
	said string
}

// newNotifier reads what the unit asks for. A sign of life is given three times as often as
// it has to be.
func newNotifier(clk clock.WithTicker, log *slog.Logger) *notifier {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not fed", "error", err)
	}
	return &notifier{
		send:  func(state string) (bool, error) { return daemon.SdNotify(false, state) },
		every: limit / 3, clock: clk, log: log,
	}
}

func (n *notifier) tell(state string) {
	if n == nil {
		return
	}
	if _, err := n.send(state); err != nil {
		n.log.Warn("systemd could not be told", "state", state, "error", err)
	}
}

// status is the line that systemctl status shows. It is told when it changes.
func (n *notifier) status(line string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	changed := n.said != line
	n.said = line
	n.mu.Unlock()
	if changed {
		n.tell("STATUS=" + line)
	}
}

// ticker is when to give a sign of life. Its channel is nil if nobody waits for one.
func (n *notifier) ticker() (<-chan time.Time, func()) {
	if n == nil || n.every <= 0 {
		return nil, func() {}
	}
	t := n.clock.NewTicker(n.every)
	return t.C(), t.Stop
}

// alive gives a sign of life.
func (n *notifier) alive() { n.tell(daemon.SdNotifyWatchdog) }

// attend does what takes long, and gives signs of life as long as it does: when the step
// that is being taken has had all its time and more, systemd ends the agent, and its next
// start goes on from the journal.
func (n *notifier) attend(m *Machine, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	tick, stop := n.ticker()
	defer stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick:
			n.feed(m)
		}
	}
}

func (n *notifier) feed(m *Machine) {
	if late := m.late(); late > 0 {
		n.log.Error("The step that is being taken hangs; systemd ends this agent, and the next one goes on", "late", late)
		return
	}
	n.alive()
}

const (
	// hangs is how much longer a step may take than it says.
	hangs = 5 * time.Minute

	// fetchSilence is how long a fetch may go on without progress: one large path on a
	// slow disk.
	fetchSilence = time.Hour

	// ladderTime is more than the steps of the way back take together, without the wait
	// for what worked before.
	ladderTime = 45 * time.Minute
)

// patience is how long the step of an attempt may take before the agent counts as hanging.
func patience(o *OpenAttempt, budget, confirm time.Duration) time.Duration {
	switch {
	case o == nil:
		return hangs
	case o.Step == nfv1.HostPhaseFetching:
		return fetchSilence
	case o.Step == nfv1.HostPhaseActivating:
		return o.Timeout + hangs
	case o.Step == nfv1.HostPhaseVerifying:
		return budget + hangs
	case o.Step == nfv1.HostPhaseConfirming:
		return confirm + hangs
	case o.Step == nfv1.HostPhaseCommitting:
		return lockPatience + o.Timeout + hangs
	default: // the way back, its checks and those of the agent
		return ladderTime + 2*(budget+confirm) + hangs
	}
}

// expect gives the work that begins now its time.
func (m *Machine) expect(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deadline = m.Clock.Now().Add(d)
}

// expectStep gives the step that is in the journal its time.
func (m *Machine) expectStep() {
	budget := time.Duration(0)
	if m.plan != nil {
		budget = m.plan.HealthBudget()
	}
	m.expect(patience(m.journal.Open, budget, m.confirmTimeout()))
}

// late is how long the work should have been done.
func (m *Machine) late() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Clock.Now().Sub(m.deadline)
}

// statusLine says in a line what the agent does.
func (m *Machine) statusLine() string {
	switch o := m.journal.Open; {
	case o != nil:
		return fmt.Sprintf("%s revision %d, %s", o.Step, o.Revision, o.StorePath)
	case m.results != nil && !m.healthy():
		return fmt.Sprintf("Idle at revision %d; %s", m.journal.ObservedRevision, shorten(m.unhealthyMessage(), 200))
	default:
		return fmt.Sprintf("Idle at revision %d", m.journal.ObservedRevision)
	}
}

// tell updates what others see of the agent at every change.
func (m *Machine) tell() {
	m.Notify.status(m.statusLine())
	m.Metrics.observe(m)
}

// ready tells systemd that the agent has started. It does so before it works: what it goes
// on with may be the activation that waits for its start.
func (n *notifier) ready(ctx context.Context) {
	n.tell(daemon.SdNotifyReady)
	context.AfterFunc(ctx, func() { n.tell(daemon.SdNotifyStopping) })
}
