// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/deadman"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// directHands carry attempts out in this process: for a host that lives in a directory,
// and for a machine without systemd. Nobody goes back if the agent is gone: what it had
// begun is ended and undone by its next start.
type directHands struct {
	*activation.NixOS
	bootID string
	log    *slog.Logger
}

var _ Activator = (*directHands)(nil)

// Arm implements Activator.
func (h *directHands) Arm(context.Context, attempt.Plan) error { return nil }

// Settle implements Activator.
func (h *directHands) Settle(context.Context, attempt.Plan) error { return nil }

// Stale implements Activator.
func (h *directHands) Stale(context.Context, attempt.Plan) (string, error) { return "", nil }

// Activate implements Activator.
func (h *directHands) Activate(ctx context.Context, p attempt.Plan) (attempt.Activation, error) {
	helper := &activation.Helper{Switch: h.NixOS, BootID: h.bootID}
	return helper.Run(ctx, attempt.At(p.StateDir, p.Number))
}

// Join implements Activator.
func (h *directHands) Join(_ context.Context, p attempt.Plan) (attempt.Activation, bool, error) {
	a, err := attempt.At(p.StateDir, p.Number).Activation()
	return a, err == nil && a.Ended, err
}

// Rollback implements Activator.
func (h *directHands) Rollback(ctx context.Context, p attempt.Plan) (attempt.RollbackRecord, error) {
	ladder := &deadman.Ladder{
		Host: deadman.NewMachine(p), Trigger: activation.TriggerAgent, BootID: h.bootID, Clock: clock.RealClock{}, Log: h.log,
	}
	return ladder.Climb(ctx, attempt.At(p.StateDir, p.Number))
}

// toolDirs are searched for programs that PATH does not lead to.
var toolDirs = []string{"/run/current-system/sw/bin", "/nix/var/nix/profiles/default/bin", "/usr/bin", "/bin"}

// findTool is the absolute path of a program in a directory that will not change: links
// of a running system are followed now, since they lead elsewhere after an activation.
// Only the name is kept as it is, for Nix's programs tell by it what they are. Empty if
// there is none.
func findTool(name string) string {
	file, err := exec.LookPath(name)
	for _, dir := range toolDirs {
		if err == nil {
			break
		}
		file, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		return ""
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(file)) //nolint:forbidigo // a program of this machine, not of a host in a directory
	if err != nil || !filepath.IsAbs(dir) {
		return ""
	}
	return filepath.Join(dir, name)
}

// storePathOf is the path in the store that a file belongs to; empty if it lies elsewhere.
func storePathOf(file string) nix.StorePath {
	rest, inside := strings.CutPrefix(file, nix.StoreDir+"/")
	base, _, _ := strings.Cut(rest, "/")
	path, err := nix.ParseStoreBaseName(base)
	if !inside || err != nil {
		return ""
	}
	return path
}

// newPlanBase is what is the same in the plan of every attempt on this host.
func newPlanBase(c Config) (attempt.Plan, error) {
	self, err := os.Executable()
	if err != nil {
		return attempt.Plan{}, err
	}
	// What cannot be read is the agent's to complain about when it connects.
	ca, err := os.ReadFile(c.CAFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return attempt.Plan{}, err
	}
	return attempt.Plan{
		Root: filepath.Clean(c.Root), StateDir: filepath.Clean(c.StateDir), Profile: nix.NewProfile(c.Root).Link(),
		Protection: attempt.ProtectionNone, Agent: self,
		Tools:    attempt.Tools{NixEnv: findTool("nix-env"), NixConfDir: c.NixConfDir},
		Baseline: attempt.Baseline{Server: c.Server, CA: string(ca), IgnoreFailedUnits: c.IgnoreFailedUnits},
	}, nil
}
