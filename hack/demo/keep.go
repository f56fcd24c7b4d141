// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"fmt"
	"os"
	"strings"
)

// writeScripts writes what a person needs to look at the fleet and to stop it.
func (d *demo) writeScripts() error {
	env := fmt.Sprintf("# Source this: . %s\nexport KUBECONFIG=%s\nexport PATH=%s:$PATH\n",
		d.path("demo-env"), shellQuote(d.kubeconfig()), shellQuote(d.binDir))
	if err := os.WriteFile(d.path("demo-env"), []byte(env), 0o600); err != nil {
		return err
	}
	//nolint:gosec // It is a program.
	return os.WriteFile(d.path("stop.sh"), []byte(d.stopScript()), 0o755)
}

// showProcesses prints how to kill and restart each part.
func (d *demo) showProcesses() {
	d.say("\nProcesses, each with the script that starts it again. Kill any, at any time, and start it:\n")
	for _, p := range d.processes {
		d.say("  kill -9 %-8d  setsid %s &", p.pid(), p.script)
	}
}

// leaveRunning prints how to look at the fleet and how to stop it.
func (d *demo) leaveRunning(failed bool) error {
	if err := d.writeScripts(); err != nil {
		return err
	}
	if d.ready != nil {
		if err := d.ready.close(); err != nil {
			return err
		}
	}
	verb := "The fleet is"
	if failed {
		verb = "The demo has failed. The fleet is still"
	}
	d.say("\n%s running. Look at it with:\n", verb)
	d.say("  . %s", d.path("demo-env"))
	d.say("  kubectl get hosts,releases,rollouts -n %s", fleetNamespace)
	d.say("  kubectl nixfleet status -n %s --watch", fleetNamespace)
	d.say("  kubectl nixfleet status -n %s %s", fleetNamespace, canary)
	d.showProcesses()
	d.say("\nLogs are in %s, the hosts in %s.", d.path("logs"), d.path("hosts"))
	d.say("To stop everything and remove it:  %s", d.path("stop.sh"))
	return nil
}

// stopScript stops the agents first and the control plane after them. Each process has
// its number in a file of its own; a number that was given to another program since then
// is left alone.
func (d *demo) stopScript() string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# Stops the fleet of the demo and removes it.\ncd /\n")
	b.WriteString(`ours() {
	{ tr '\0' ' ' < "/proc/$1/cmdline" | grep -q -F ` + shellQuote(d.dir) + `; } 2>/dev/null
}
stop() {
	pid=$(cat "$1" 2>/dev/null) || return 0
	ours "$pid" || return 0
	kill "$pid"
	n=0
	while ours "$pid" && [ $n -lt 150 ]; do sleep 0.1; n=$((n + 1)); done
	ours "$pid" && kill -9 "$pid"
}
`)
	for i := len(d.processes) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "stop %s\n", shellQuote(d.path("run", d.processes[i].name+".pid")))
	}
	fmt.Fprintf(&b, "chmod -R u+w %s && rm -rf %s\n", shellQuote(d.dir), shellQuote(d.dir))
	return b.String()
}
