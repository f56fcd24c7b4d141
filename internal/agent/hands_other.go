//go:build !linux

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
)

// newHands returns the hands for a host.
func newHands(base *attempt.Plan, os *activation.NixOS, _ attempt.Agent, log *slog.Logger) Activator {
	log.Info("No dead man's switch: this host's agent alone goes back", "root", base.Root)
	return &directHands{NixOS: os, bootID: bootID(), log: log}
}

// newHelper is the helper for a plan, in this process.
func newHelper(p attempt.Plan) *activation.Helper {
	return &activation.Helper{
		Switch: &activation.NixOS{Root: p.Root, Runner: &activation.DirectRunner{Root: p.Root}, LogDir: filepath.Join(p.StateDir, "logs")},
		BootID: bootID(),
	}
}

// systemdAnswers: there is none.
func systemdAnswers(context.Context) (bool, error) { return false, nil }
