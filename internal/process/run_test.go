// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package process

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func shell(script string) Spec {
	return Spec{Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Timeout: time.Minute}
}

func TestRun(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		want   Outcome
		output string
	}{
		"success":             {script: "echo fine", output: "fine"},
		"exit code":           {script: "echo bad >&2; exit 4", want: Outcome{ExitCode: 4}, output: "bad"},
		"signal":              {script: "kill -9 $$", want: Outcome{ExitCode: -1}},
		"no other variables":  {script: "env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD=", output: "PATH=/usr/bin:/bin"},
		"session of its own":  {script: `test "$(ps -o sid= -p $$ | tr -d ' ')" = $$`},
		"leftovers are ended": {script: "sleep 600 & exit 3", want: Outcome{ExitCode: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(tc.script, "ps ") {
				if _, err := exec.LookPath("ps"); err != nil {
					t.Skip("no ps")
				}
			}
			spec := shell(tc.script)
			capture := NewCapture(100, nil, 0)
			spec.Output = capture
			got, err := Run(t.Context(), spec)
			if err != nil || got != tc.want || capture.Tail() != tc.output {
				t.Errorf("got %+v %v %q, want %+v %q", got, err, capture.Tail(), tc.want, tc.output)
			}
		})
	}
}

func TestRunTimeoutEndsGrandchildren(t *testing.T) {
	for name, script := range map[string]string{
		"polite":   "sh -c 'sleep 600 & echo $! >%; wait' & wait",
		"stubborn": "trap '' TERM; sh -c 'trap \"\" TERM; sleep 600 & echo $! >%; while :; do wait; done' & while :; do wait; done",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			spec := shell(strings.ReplaceAll(script, "%", file))
			spec.Timeout, spec.Grace = 500*time.Millisecond, 100*time.Millisecond
			got, err := Run(t.Context(), spec)
			if err != nil || !got.TimedOut {
				t.Fatalf("got %+v, %v; want a timeout", got, err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
			if err != nil {
				t.Fatal(err)
			}
			// It may be a zombie when nobody takes in orphans: its group is asked for.
			if group, err := syscall.Getpgid(pid); err == nil && groupExists(group) {
				t.Errorf("the grandchild %d still runs", pid)
			}
		})
	}
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, shell("sleep 600")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := Run(ctx, Spec{Path: "/bin/sh"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("started although the context is over: %v", err)
	}
}

func TestRunMissingProgram(t *testing.T) {
	if _, err := Run(t.Context(), Spec{Path: "/nonexistent"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestCapture(t *testing.T) {
	var file bytes.Buffer
	c := NewCapture(8, &file, 5)
	for _, s := range []string{"one\n", "two\n", "thr\xffee\x1b\n"} {
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if c.Tail() != "three" || c.LastLine() != "three" || file.String() != "one\nt" {
		t.Errorf("tail %q, line %q, file %q", c.Tail(), c.LastLine(), file.String())
	}
}
