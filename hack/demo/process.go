// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a process has to end by itself.
const stopGrace = 15 * time.Second

// process is a program of the fleet. It runs in a session of its own, from a script, so
// that a person can start it again in the same way.
type process struct {
	name   string
	script string
	log    string
	cmd    *exec.Cmd
	exited chan struct{}
	// expected is closed before the process is asked to end.
	expected chan struct{}
}

// newProcess writes the script that starts a program.
func (d *demo) newProcess(name string, argv ...string) (*process, error) {
	p := &process{name: name, script: d.path("run", name+".sh"), log: d.path("logs", name+".log")}
	quoted := make([]string, len(argv))
	for i, arg := range argv {
		quoted[i] = shellQuote(arg)
	}
	text := fmt.Sprintf("#!/bin/sh\n# Starts %s in the foreground.\ncd %s\necho $$ > %s\nexec >> %s 2>&1\nexec %s\n",
		name, shellQuote(d.dir), shellQuote(d.path("run", name+".pid")), shellQuote(p.log), strings.Join(quoted, " \\\n  "))
	//nolint:gosec // It is a program.
	if err := os.WriteFile(p.script, []byte(text), 0o755); err != nil {
		return nil, err
	}
	d.processes = append(d.processes, p)
	return p, nil
}

// start starts the program. If it ends by itself, the demo fails at once.
func (d *demo) start(p *process, env ...string) error {
	cmd := exec.Command("/bin/sh", p.script) //nolint:noctx // It may live longer than the demo.
	cmd.Env = append(d.environment(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited, expected := make(chan struct{}), make(chan struct{})
	p.cmd, p.exited, p.expected = cmd, exited, expected
	go func() {
		err := cmd.Wait()
		select {
		case <-expected:
		default:
			d.fail(fmt.Errorf("%s ended by itself (%v); its log is %s", p.name, exitText(err), p.log))
		}
		close(exited)
	}()
	return nil
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) expectEnd() {
	select {
	case <-p.expected:
	default:
		close(p.expected)
	}
}

// kill ends the program, and it alone, as a crash would: what it has started goes on.
func (p *process) kill() error {
	p.expectEnd()
	if err := p.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.exited
	return nil
}

// stop asks the program to end, and ends it and all that it has started if it does not.
func (p *process) stop() error {
	if !p.running() {
		return p.sweep()
	}
	p.expectEnd()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	var late error
	select {
	case <-p.exited:
	case <-timer.C:
		late = fmt.Errorf("%s had not ended %s after SIGTERM and was killed", p.name, stopGrace)
	}
	return errors.Join(late, p.sweep())
}

// sweep kills what is left of the program's process group.
func (p *process) sweep() error {
	if p.cmd == nil {
		return nil
	}
	if err := syscall.Kill(-p.pid(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill what %s left: %w", p.name, err)
	}
	<-p.exited
	return nil
}

// tail returns the last lines of the log.
func (p *process) tail(lines int) string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(len(all)-lines, 0):], "\n")
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// path is a path in the directory of the demo.
func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}
