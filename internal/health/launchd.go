// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"context"
	"fmt"
	"strings"
)

// Launchctl runs launchctl with these arguments and returns what it printed and its exit
// code. The error says that it could not be run.
type Launchctl func(ctx context.Context, args ...string) (output string, exitCode int, err error)

// noSuchService is how launchctl print answers for a label that is not loaded.
const noSuchService = 113

func (p *Prober) probeLaunchd(ctx context.Context, c Launchd) error {
	if p.Launchctl == nil {
		return fmt.Errorf("launchd does not run this host")
	}
	var bad []string
	for _, label := range c.Labels {
		output, code, err := p.Launchctl(ctx, "print", "system/"+label)
		switch {
		case err != nil:
			return fmt.Errorf("ask launchd for %s: %w", label, err)
		case code == noSuchService:
			bad = append(bad, label+" is not loaded")
		case code != 0:
			bad = append(bad, fmt.Sprintf("launchctl print system/%s exited with %d", label, code))
		default:
			if problem := judgeService(output); problem != "" {
				bad = append(bad, label+" "+problem)
			}
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%s", strings.Join(bad, ", "))
	}
	return nil
}

// judgeService reads what launchctl prints of a service: an entry "state = running" at the
// first level. Apple calls the format no interface, so whatever else is there is no proof
// that the service runs.
func judgeService(output string) (problem string) {
	state, exit := "", ""
	for line := range strings.Lines(output) {
		// The blocks inside, such as those of endpoints, have states of their own.
		entry, first := strings.CutPrefix(strings.TrimRight(line, "\n"), "\t")
		key, value, found := strings.Cut(entry, " = ")
		if !first || !found || strings.HasPrefix(entry, "\t") {
			continue
		}
		switch key {
		case "state":
			state = value
		case "last exit code":
			exit = value
		}
	}
	switch {
	case state == "running":
		return ""
	case state == "":
		return "has no state that this agent can read"
	case exit != "":
		return fmt.Sprintf("is %s (last exit code %s)", state, exit)
	default:
		return "is " + state
	}
}
