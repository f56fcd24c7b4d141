// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopGrace is how long a process has to end by itself.
const stopGrace = 15 * time.Second

// process is a program of the fleet. It runs in a session of its own, from a script, so
// that a person can start it again in the same way.
type process struct {
	name    string
	dir     string // Its arguments have it in them.
	script  string
	log     string
	pidFile string
	cmd     *exec.Cmd
	exited  chan struct{}
	// expected is closed before the process is asked to end.
	expected chan struct{}
}

// newProcess writes the script that starts a program.
func (d *demo) newProcess(name string, argv ...string) (*process, error) {
	p := &process{
		name: name, dir: d.dir,
		script: d.path("run", name+".sh"), log: d.path("logs", name+".log"), pidFile: d.path("run", name+".pid"),
	}
	quoted := make([]string, len(argv))
	for i, arg := range argv {
		quoted[i] = shellQuote(arg)
	}
	text := fmt.Sprintf("#!/bin/sh\n# Starts %s in the foreground.\ncd %s\necho $$ > %s\nexec >> %s 2>&1\nexec %s\n",
		name, shellQuote(d.dir), shellQuote(p.pidFile), shellQuote(p.log), strings.Join(quoted, " \\\n  "))
	//nolint:gosec // It is a program.
	if err := os.WriteFile(p.script, []byte(text), 0o755); err != nil {
		return nil, err
	}
	d.processes = append(d.processes, p)
	return p, nil
}

// start starts the program. If it ends by itself, the demo fails at once. If somebody
// kills it, the demo goes on and waits, as long as it waits for anything, for somebody to
// start it again.
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
		defer close(exited)
		err := cmd.Wait()
		select {
		case <-expected:
			return
		default:
		}
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
			d.say("\n(%s was killed; to start it again: setsid %s &)", p.name, p.script)
			return
		}
		d.fail(fmt.Errorf("%s ended by itself (%v); its log is %s", p.name, exitText(err), p.log))
	}()
	return nil
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// pid is the number of the program as it runs now, whoever started it; 0 if it does not.
func (p *process) pid() int {
	data, err := os.ReadFile(p.pidFile)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	// The number may be that of another program meanwhile.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(cmdline, []byte(p.dir)) {
		return 0
	}
	return pid
}

// expectEnd says that the end of the program is wanted.
func (p *process) expectEnd() {
	if p.cmd == nil {
		return
	}
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
	p.expectEnd()
	pid := p.pid()
	if pid == 0 {
		return p.sweep()
	}
	err := p.end(pid)
	if err != nil {
		err = fmt.Errorf("stop %s: %w", p.name, err)
	}
	return errors.Join(err, p.sweep())
}

// end sends SIGTERM to a process and waits until it has ended.
func (p *process) end(pid int) error {
	handle, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(handle) //nolint:errcheck // Nothing was written.
	if err := unix.PidfdSendSignal(handle, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	if err := awaitExit(handle, stopGrace); err == nil {
		return nil
	}
	if err := unix.PidfdSendSignal(handle, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return errors.Join(fmt.Errorf("it had not ended %s after SIGTERM and was killed", stopGrace), awaitExit(handle, stopGrace))
}

func awaitExit(handle int, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds())) //nolint:gosec // Small.
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case ready == 0:
			return fmt.Errorf("it is still there after %s", patience)
		default:
			return nil
		}
	}
}

// sweep kills what is left of the process group that the demo started.
func (p *process) sweep() error {
	if p.cmd == nil {
		return nil
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
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
