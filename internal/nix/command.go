// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// maxOutput bounds what a command may print; the references of the largest paths
	// stay far below.
	maxOutput = 4 << 20

	// stopGrace is how long a cancelled command may take to end by itself, so that it
	// can release the locks of the store.
	stopGrace = 5 * time.Second
)

// passedEnvironment are the variables that reach Nix: what a download needs, and nothing
// that could change what is trusted. NIX_CONFIG and NIX_REMOTE are not among them.
var passedEnvironment = []string{
	"PATH", "TMPDIR", "LANG", "LC_ALL",
	"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NIX_SSL_CERT_FILE",
}

// CommandError is a command of Nix that failed.
type CommandError struct {
	// Command is the program and what it was to do.
	Command string

	// ExitCode is its exit code; -1 if a signal ended it or it could not be started.
	ExitCode int

	// Message is what Nix said about it, shortened.
	Message string

	// Err is what the operating system said.
	Err error
}

// Error says what failed, and why according to Nix.
func (e *CommandError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("%s: %v", e.Command, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Command, e.Message)
}

// Unwrap gives access to what the operating system said.
func (e *CommandError) Unwrap() error { return e.Err }

// commands runs the programs of Nix against the store below root.
type commands struct {
	root     string
	stateDir string
	confDir  string
	binDir   string
}

func newCommands(root string, opts []Option) commands {
	c := commands{root: filepath.Clean(root)}
	c.stateDir = filepath.Join(c.root, "var/lib/nixfleet")
	for _, opt := range opts {
		opt(&c)
	}
	return c
}

// storeArgs point nix-store and nix at the store below root.
func (c commands) storeArgs() []string {
	if c.root == "/" {
		return nil
	}
	return []string{"--store", c.root}
}

func (c commands) environment() []string {
	home := filepath.Join(c.stateDir, "nix-home")
	env := []string{
		"HOME=" + home,
		// The cache of what a binary cache has is our own, so that it can be wiped.
		"XDG_CACHE_HOME=" + filepath.Join(home, "cache"),
		"XDG_CONFIG_HOME=" + filepath.Join(home, "config"),
		"XDG_DATA_HOME=" + filepath.Join(home, "share"),
		"XDG_STATE_HOME=" + filepath.Join(home, "state"),
		// No configuration of a user, the system's alone.
		"NIX_USER_CONF_FILES=",
	}
	if c.root != "/" {
		// nix-env has no option for the store.
		env = append(env, "NIX_REMOTE="+c.root)
	}
	if c.confDir != "" {
		env = append(env, "NIX_CONF_DIR="+c.confDir)
	}
	for _, name := range passedEnvironment {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// invocation is one run of a command.
type invocation struct {
	program string
	args    []string
	what    string            // for errors: what the command was to do
	stderr  func(line []byte) // gets each line; nil keeps the useful ones for the error
}

// run returns what the command printed. Its error is a *CommandError, or says that ctx
// ended it.
func (c commands) run(ctx context.Context, inv invocation) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", inv.what, context.Cause(ctx))
	}
	if err := os.MkdirAll(filepath.Join(c.stateDir, "nix-home"), 0o700); err != nil {
		return "", fmt.Errorf("%s: make a home for Nix: %w", inv.what, err)
	}
	program := inv.program
	if c.binDir != "" {
		program = filepath.Join(c.binDir, program)
	}
	var messages messageLog
	onLine := inv.stderr
	if onLine == nil {
		onLine = messages.addPlain
	}
	stdout := &boundedBuffer{limit: maxOutput}
	lines := &lineWriter{emit: onLine}

	cmd := exec.Command(program, inv.args...) //nolint:noctx // The whole process group has to be stopped, see stopOnDone.
	cmd.Env = c.environment()
	cmd.Dir = "/"
	cmd.Stdout = stdout
	cmd.Stderr = lines
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = stopGrace
	if err := cmd.Start(); err != nil {
		return "", &CommandError{Command: inv.what, ExitCode: -1, Err: fmt.Errorf("start %s: %w", program, err)}
	}
	release := stopOnDone(ctx, cmd.Process.Pid)
	err := cmd.Wait()
	release()
	lines.flush()

	if err == nil && stdout.overflow {
		err = fmt.Errorf("it printed more than %d bytes", maxOutput)
	}
	if err == nil {
		return stdout.String(), nil
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s was stopped: %w", inv.what, context.Cause(ctx))
	}
	return "", &CommandError{Command: inv.what, ExitCode: cmd.ProcessState.ExitCode(), Message: messages.String(), Err: err}
}

// stopOnDone ends the process group when ctx does: first politely, then by force. The
// returned function has to be called when the leader is gone; nothing is sent after it.
func stopOnDone(ctx context.Context, pgid int) (release func()) {
	gone := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-gone:
			return
		case <-ctx.Done():
		}
		signalGroup(pgid, syscall.SIGTERM)
		grace := time.NewTimer(stopGrace)
		defer grace.Stop()
		select {
		case <-gone:
		case <-grace.C:
		}
		// What the leader left behind, or the leader itself.
		signalGroup(pgid, syscall.SIGKILL)
	}()
	return func() {
		close(gone)
		<-stopped
	}
}

// signalGroup has nobody to report to: the group may be gone already, which is the aim.
func signalGroup(pgid int, signal syscall.Signal) {
	_ = syscall.Kill(-pgid, signal)
}

// boundedBuffer keeps the first bytes and notes that there were more.
type boundedBuffer struct {
	bytes.Buffer
	limit    int
	overflow bool
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); room < len(p) {
		b.overflow = true
		b.Buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}

// lineWriter hands on each line without its end. Of a line that is too long only the
// beginning is handed on.
type lineWriter struct {
	emit    func(line []byte)
	pending []byte
}

const maxLine = 64 << 10

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		if room := maxLine - len(w.pending); room > 0 {
			w.pending = append(w.pending, line[:min(room, len(line))]...)
		}
		if ended {
			w.flush()
		}
		p = rest
	}
	return n, nil
}

func (w *lineWriter) flush() {
	if len(w.pending) > 0 {
		w.emit(w.pending)
		w.pending = w.pending[:0]
	}
}

// fields splits the output of a command that prints one word a line.
func fields(out string) []string { return strings.Fields(out) }
