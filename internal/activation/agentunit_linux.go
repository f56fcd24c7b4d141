// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/nixfleet/nixfleet/internal/attempt"
)

// unitState is what systemd says about the agent's unit.
type unitState struct {
	active  bool
	pid     int
	program string
	args    []string
}

func (u *Units) unitState(ctx context.Context, unit string) (unitState, error) {
	props, err := u.systemd.state(ctx, unit)
	if err != nil {
		return unitState{}, fmt.Errorf("ask for the state of %s: %w", unit, err)
	}
	s := unitState{active: props["ActiveState"] == "active" || props["ActiveState"] == "activating"}
	if pid, ok := props["MainPID"].(uint32); ok {
		s.pid = int(pid)
	}
	// The first command: (path, argv, ...).
	if commands, ok := props["ExecStart"].([][]any); ok && len(commands) > 0 && len(commands[0]) > 1 {
		s.program, _ = commands[0][0].(string)
		if argv, ok := commands[0][1].([]string); ok && len(argv) > 0 {
			s.args = argv[1:]
		}
	}
	return s, nil
}

// Stale says why a process is not the agent that its unit would start now; empty if it
// is. After an activation the unit is that of the new system.
func (u *Units) Stale(ctx context.Context, unit string, a attempt.Agent) (string, error) {
	s, err := u.unitState(ctx, unit)
	if err != nil {
		return "", err
	}
	return stale(unit, s, a), nil
}

func stale(unit string, s unitState, a attempt.Agent) string {
	program := s.program
	if resolved, err := filepath.EvalSymlinks(program); err == nil { //nolint:forbidigo // a program of this machine, not of a host in a directory
		program = resolved
	}
	switch {
	case !s.active:
		return unit + " does not run"
	case s.pid != a.PID:
		return fmt.Sprintf("process %d is not that of %s, which is %d", a.PID, unit, s.pid)
	case program != a.Program && program != a.Executable:
		return fmt.Sprintf("%s runs %s, and this is %s", unit, program, a.Executable)
	case !slices.Equal(s.args, a.Args):
		return fmt.Sprintf("%s has the arguments %q, and this has %q", unit, s.args, a.Args)
	case a.Config != "" && attempt.DigestFile(a.Config) != a.ConfigDigest:
		return fmt.Sprintf("%s has changed since it was read", a.Config)
	default:
		return ""
	}
}

// Freshen starts the agent's unit if it does not run, and restarts it if its process is
// not what the unit would start now. It does not wait.
func (u *Units) Freshen(ctx context.Context, p attempt.Plan) error {
	if p.AgentUnit == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	s, err := u.unitState(ctx, p.AgentUnit)
	if err != nil {
		return err
	}
	if s.active {
		a, err := attempt.LoadAgent(p.StateDir)
		if err != nil {
			return err
		}
		// A process that has not said yet what it is was started a moment ago.
		if a.PID != s.pid || stale(p.AgentUnit, s, a) == "" {
			return nil
		}
	}
	return u.Restart(ctx, p.AgentUnit)
}

// Restart starts a unit, and stops it before if it runs. It does not wait.
func (u *Units) Restart(ctx context.Context, unit string) error {
	err := u.systemd.with(ctx, func(conn *dbus.Conn) error {
		_, err := conn.RestartUnitContext(ctx, unit, "replace", nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	return nil
}

// OwnUnit is the service that this process runs in; empty if it runs in none.
func OwnUnit() string {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return ownUnit(string(data))
}

func ownUnit(cgroups string) string {
	for line := range strings.Lines(cgroups) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		if controllers != "" && controllers != "name=systemd" {
			continue
		}
		// A service of a user's manager is none of the machine's.
		if strings.Contains(path, "/user@") {
			return ""
		}
		for _, part := range slices.Backward(strings.Split(path, "/")) {
			if strings.HasSuffix(part, ".service") {
				return part
			}
		}
	}
	return ""
}
