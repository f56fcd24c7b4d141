// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"fmt"
	"strconv"

	"github.com/nixfleet/nixfleet/internal/attempt"
)

// Who asks for a roll-back, as it stands in its record.
const (
	TriggerAgent           = "agent"
	TriggerActivationTimer = "activation-timer"
	TriggerConfirmTimer    = "confirm-timer"
	TriggerPerson          = "person"
)

// ActivateUnit is the service that the helper of an attempt runs in.
func ActivateUnit(p attempt.Plan) string { return "nixfleet-activate-" + p.ID() + ".service" }

// RollbackUnit is the service that the agent goes back in.
func RollbackUnit(p attempt.Plan) string { return "nixfleet-rollback-" + p.ID() + ".service" }

// TimerName is the name of a dead man's timer and of its service, without the suffix.
func TimerName(p attempt.Plan, s Stage) string {
	return fmt.Sprintf("nixfleet-deadman-%d-%d", p.Number, s)
}

// activateArgs and rollbackArgs are command lines of the agent's program. They name all
// that the program needs: it reads no configuration.
func activateArgs(p attempt.Plan) []string {
	return []string{p.Agent, "activate", "--attempt", strconv.FormatInt(p.Number, 10), "--state-dir", p.StateDir}
}

func rollbackArgs(p attempt.Plan, trigger string) []string {
	return []string{p.Agent, "rollback", "--attempt", strconv.FormatInt(p.Number, 10), "--state-dir", p.StateDir, "--trigger", trigger}
}

func timerTrigger(s Stage) string {
	if s == StageActivation {
		return TriggerActivationTimer
	}
	return TriggerConfirmTimer
}
