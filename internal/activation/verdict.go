// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"bytes"
	"io"

	"github.com/nixfleet/nixfleet/internal/attempt"
)

// What switch-to-configuration answers.
const (
	// exitLocked: another one runs. It is tried again.
	exitLocked = 11

	// exitUnits: the new configuration is in place, and units failed to start, or the
	// activation of a user did. A script of the activation may have failed, too: only the
	// output tells.
	exitUnits = 4

	// exitInit: the running systemd cannot take the system over; nothing was activated.
	exitInit = 100

	scriptFailed = "Failed to run activate script"
)

// Judgement is what an activation's end says about the host.
type Judgement int

// Judgements.
const (
	// VerdictActivated: the new system runs.
	VerdictActivated Judgement = iota
	// VerdictUnitsFailed: the new system runs, and units of it do not.
	VerdictUnitsFailed
	// VerdictFailed: the host is anything between the two systems. That the running
	// system was not relinked proves nothing, since that comes last.
	VerdictFailed
)

// Verdict judges the end of an activation.
func Verdict(a attempt.Activation) Judgement {
	switch {
	case !a.Ended || a.TimedOut || a.Error != "":
		return VerdictFailed
	case a.ExitCode == 0:
		return VerdictActivated
	case a.ExitCode == exitUnits && !a.ScriptFailed:
		return VerdictUnitsFailed
	default:
		return VerdictFailed
	}
}

// ExplainExit says what an exit code of switch-to-configuration means; empty if nothing
// more is known than that it failed.
func ExplainExit(code int) string {
	switch code {
	case 1:
		return "a check before the switch or the switch itself failed"
	case 2:
		return "the activation script failed"
	case exitUnits:
		return "units failed"
	case exitLocked:
		return "another activation held the lock all the time"
	case exitInit:
		return "the running init cannot take the system over: it needs a reboot"
	default:
		return ""
	}
}

// phraseWatch looks for scriptFailed in all that is written: the end that is kept of a long
// output has the units that failed after it.
type phraseWatch struct {
	io.Writer
	seen bool
	last []byte
}

// Write implements io.Writer.
func (w *phraseWatch) Write(p []byte) (int, error) {
	if !w.seen {
		joined := append(w.last, p...)
		w.seen = bytes.Contains(joined, []byte(scriptFailed))
		w.last = bytes.Clone(joined[max(0, len(joined)-len(scriptFailed)+1):])
	}
	return w.Writer.Write(p)
}
