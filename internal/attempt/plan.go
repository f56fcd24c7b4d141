// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package attempt

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// Plan is what an attempt is about to do and how to undo it. It is written before
// anything is changed and never after.
type Plan struct {
	// Number is the number of the attempt on this host; it only grows.
	Number int64 `json:"attempt"`

	// Revision is the revision of spec.desired that is carried out, for people.
	Revision int64 `json:"revision,omitempty"`

	// Nonce tells this attempt from every other, whatever its number: who confirms it
	// has to know it.
	Nonce string `json:"nonce"`

	// Root is where the host's file system begins, StateDir where the agent keeps its state.
	Root     string `json:"root"`
	StateDir string `json:"stateDir"`

	// BootID is the boot of the machine that the attempt belongs to. The deadlines mean
	// nothing in another one.
	BootID string `json:"bootID,omitempty"`

	// Target is what is activated, Previous what ran before; empty if nothing did.
	Target   System `json:"target"`
	Previous System `json:"previous"`

	// Profile is the link of the system profile, PreviousProfile its state before.
	Profile         string           `json:"profile"`
	PreviousProfile nix.ProfileState `json:"previousProfile"`

	// ActivationTimeoutSeconds is how long the activation may take,
	// HealthBudgetSeconds how long the health checks afterwards, and
	// ConfirmTimeoutSeconds how long the report after those.
	ActivationTimeoutSeconds int64 `json:"activationTimeoutSeconds"`
	HealthBudgetSeconds      int64 `json:"healthBudgetSeconds"`
	ConfirmTimeoutSeconds    int64 `json:"confirmTimeoutSeconds"`

	// ActivateBy is when the first dead man's timer fires, in nanoseconds of
	// CLOCK_MONOTONIC. 0 without such timers.
	ActivateBy int64 `json:"activateBy,omitempty"`

	// Protection says who goes back if the agent cannot.
	Protection Protection `json:"protection"`

	// Tools are programs of the system that ran before, by absolute paths.
	Tools Tools `json:"tools"`

	// Agent is the program of the agent that wrote the plan, AgentUnit the unit that it
	// runs in; empty if it runs in none.
	Agent     string `json:"agent,omitempty"`
	AgentUnit string `json:"agentUnit,omitempty"`

	// Baseline is what worked before.
	Baseline Baseline `json:"baseline"`
}

// Protection says who brings a host back if its agent cannot.
type Protection string

// Protections.
const (
	// ProtectionTimers are timers of the service manager that run the roll-back.
	ProtectionTimers Protection = "Timers"
	// ProtectionNone is the agent alone: nobody else goes back if it is gone.
	ProtectionNone Protection = "None"
)

// System is a system, or a specialisation of it.
type System struct {
	// Path is the toplevel.
	Path nix.StorePath `json:"path,omitempty"`

	// Specialisation is the name of the specialisation; empty for the system itself.
	Specialisation string `json:"specialisation,omitempty"`
}

// String is the path, with the specialisation below it if there is one.
func (s System) String() string {
	if s.Specialisation == "" {
		return s.Path.String()
	}
	return s.Path.String() + "/specialisation/" + s.Specialisation
}

// Tools are the programs that a roll-back runs.
type Tools struct {
	// Systemctl is systemctl; empty where systemd does not run the machine.
	Systemctl string `json:"systemctl,omitempty"`

	// NixEnv is nix-env.
	NixEnv string `json:"nixEnv,omitempty"`

	// NixConfDir is the directory of nix.conf; empty for Nix's own.
	NixConfDir string `json:"nixConfDir,omitempty"`
}

// Baseline is what worked before the attempt, and hence has to work after a roll-back.
type Baseline struct {
	// Reachable says that the control plane could be reached.
	Reachable bool `json:"reachable,omitempty"`

	// Server is the URL of the gateway and CA the certificates that its own has to lead
	// to, in PEM.
	Server string `json:"server,omitempty"`
	CA     string `json:"ca,omitempty"`

	// HealthChecks are those of the Host; those of the system lie in the system.
	HealthChecks []nfv1.HealthCheck `json:"healthChecks,omitempty"`

	// Healthy are the names of the checks that passed.
	Healthy []string `json:"healthy,omitempty"`

	// UnitsChecked says that FailedUnits is complete, so that a unit which is not in it
	// and fails condemns the target. An agent that did not look leaves it out.
	UnitsChecked bool `json:"unitsChecked,omitempty"`

	// FailedUnits are the units that had failed or were waiting to be restarted:
	// switch-to-configuration makes systemd forget them.
	FailedUnits []string `json:"failedUnits,omitempty"`

	// IgnoreFailedUnits are patterns of names of units that may fail at any time.
	IgnoreFailedUnits []string `json:"ignoreFailedUnits,omitempty"`
}

// ActivationTimeout is how long the activation may take.
func (p Plan) ActivationTimeout() time.Duration { return seconds(p.ActivationTimeoutSeconds) }

// HealthBudget is how long the health checks may take.
func (p Plan) HealthBudget() time.Duration { return seconds(p.HealthBudgetSeconds) }

// ConfirmTimeout is how long the report of the new system may take.
func (p Plan) ConfirmTimeout() time.Duration { return seconds(p.ConfirmTimeoutSeconds) }

// A name of a file in the store, which is no way out of it.
var specialisationForm = regexp.MustCompile(`^[A-Za-z0-9+_?=-][A-Za-z0-9+._?=-]{0,210}$`)

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// ID is the number as it stands in names of units, logs and roots.
func (p Plan) ID() string { return strconv.FormatInt(p.Number, 10) }

// validate refuses a plan that could not be carried out, in particular one that would
// lead a program of root's anywhere but into the store.
func (p Plan) validate() error {
	var errs []error
	wrong := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(p.Number > 0, "the number %d is not positive", p.Number)
	wrong(len(p.Nonce) >= minNonce, "it has no nonce")
	wrong(filepath.IsAbs(p.Root) && filepath.IsAbs(p.StateDir), "root %q and stateDir %q have to be absolute", p.Root, p.StateDir)
	for name, s := range map[string]System{"target": p.Target, "previous": p.Previous, "previousProfile": {Path: p.PreviousProfile.Path}} {
		_, err := nix.ParseStorePath(s.Path.String())
		wrong(s == System{} || err == nil, "%s: %v", name, err)
		wrong(s.Specialisation == "" || specialisationForm.MatchString(s.Specialisation), "%s: %q does not name a specialisation", name, s.Specialisation)
	}
	wrong(p.Target.Path != "", "it has no target")
	for _, tool := range []string{p.Tools.Systemctl, p.Tools.NixEnv, p.Agent} {
		wrong(tool == "" || filepath.IsAbs(tool), "the program %q is not an absolute path", tool)
	}
	return errors.Join(errs...)
}

func decodePlan(data []byte) (Plan, error) {
	var p Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return Plan{}, err
	}
	return p, p.validate()
}
