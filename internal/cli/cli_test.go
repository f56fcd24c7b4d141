// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/controllers/host"
)

type output struct {
	code        int
	out, errOut string
}

func execute(t *testing.T, args ...string) output {
	t.Helper()
	var out, errOut bytes.Buffer
	code := Execute(t.Context(), args, Streams{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut}, Clock: clock.RealClock{},
	})
	return output{code, out.String(), errOut.String()}
}

func TestWrongUsageIsToldFromFailure(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"unknown command":        {[]string{"hosts"}, `unknown command "hosts"`},
		"unknown subcommand":     {[]string{"rollout", "pause"}, `unknown command "pause"`},
		"unknown flag":           {[]string{"status", "--nope"}, "unknown flag: --nope"},
		"no rollout":             {[]string{"rollout", "status"}, "exactly one name of a rollout"},
		"two rollouts":           {[]string{"rollout", "status", "a", "b"}, "there are 2"},
		"watch and wait":         {[]string{"rollout", "status", "a", "--watch", "--wait"}, "cannot be combined"},
		"timeout without wait":   {[]string{"rollout", "status", "a", "--wait-timeout", "1m"}, "needs --wait"},
		"negative timeout":       {[]string{"rollout", "status", "a", "--wait", "--wait-timeout", "-1m"}, "negative"},
		"bad selector":           {[]string{"status", "-l", "a in (b"}, "--selector"},
		"name and selector":      {[]string{"status", "web-01", "-l", "a=b"}, "cannot be given together"},
		"name in all namespaces": {[]string{"status", "web-01", "-A"}, "cannot be given together"},
		"watch as json":          {[]string{"status", "--watch", "-o", "json"}, "kubectl get hosts --watch -o json"},
		"unknown output":         {[]string{"status", "-o", "xml"}, "xml"},
		"negative stale":         {[]string{"status", "--stale-after", "-1s"}, "negative"},
		"plan of nothing":        {[]string{"rollout", "plan"}, "exactly one file or name of a rollout"},
		"plan as xml":            {[]string{"rollout", "plan", "a", "-o", "xml"}, "json, yaml and wide"},
		"plan without a window":  {[]string{"rollout", "plan", "a", "--host-offline-after", "0"}, "not positive"},
		"why without a host":     {[]string{"rollout", "why", "a"}, "and that of a host"},
		"version with argument":  {[]string{"version", "x"}, "takes no arguments"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := execute(t, tc.args...)
			if got.code != ExitUsage || !strings.Contains(got.errOut, tc.want) || got.out != "" {
				t.Errorf("got code %d, output %q, errors %q; want code %d and %q", got.code, got.out, got.errOut, ExitUsage, tc.want)
			}
		})
	}
}

func TestNoAPIIsAFailureThatSaysWhatToDo(t *testing.T) {
	for _, args := range [][]string{{"status"}, {"status", "--watch"}, {"rollout", "status", "r", "--wait"}, {"rollout", "plan", "r"}, {"rollout", "why", "r", "h"}} {
		got := execute(t, append(args, "--server", "http://127.0.0.1:1")...)
		if got.code != ExitFailed || !strings.Contains(got.errOut, "does the control plane run") {
			t.Errorf("%v: got code %d and %q", args, got.code, got.errOut)
		}
	}
}

func TestHelpNamesThePluginAsItIsCalled(t *testing.T) {
	got := execute(t, "rollout", "status", "--help")
	if got.code != ExitDone || !strings.Contains(got.out, "kubectl nixfleet rollout status NAME") {
		t.Errorf("got code %d and %q", got.code, got.out)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("%s has no short help", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(New(Streams{}))
}

func TestVerdict(t *testing.T) {
	tests := map[string]struct {
		phase    nfv1.RolloutPhase
		observed int64
		// Codes without and with --wait; -1 is not done.
		watch, wait int
	}{
		"new":                       {"", -1, -1, -1},
		"pending":                   {nfv1.RolloutPhasePending, 2, -1, -1},
		"progressing":               {nfv1.RolloutPhaseProgressing, 2, -1, -1},
		"soaking":                   {nfv1.RolloutPhaseSoaking, 2, -1, -1},
		"blocked may go on":         {nfv1.RolloutPhaseBlocked, 2, -1, -1},
		"reverting":                 {nfv1.RolloutPhaseReverting, 2, -1, -1},
		"cancelling":                {nfv1.RolloutPhaseCancelling, 2, -1, -1},
		"paused":                    {nfv1.RolloutPhasePaused, 2, -1, ExitNeedsPerson},
		"paused, and just resumed":  {nfv1.RolloutPhasePaused, 1, -1, -1},
		"approval":                  {nfv1.RolloutPhaseAwaitingApproval, 2, -1, ExitNeedsPerson},
		"succeeded":                 {nfv1.RolloutPhaseSucceeded, 2, ExitDone, ExitDone},
		"failed":                    {nfv1.RolloutPhaseFailed, 2, ExitFailed, ExitFailed},
		"reverted":                  {nfv1.RolloutPhaseReverted, 2, ExitFailed, ExitFailed},
		"cancelled":                 {nfv1.RolloutPhaseCancelled, 2, ExitFailed, ExitFailed},
		"cancelled, then cancelled": {nfv1.RolloutPhaseCancelled, 1, -1, -1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := &nfv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "r", Generation: 2}}
			r.Status.Phase, r.Status.ObservedGeneration = tc.phase, tc.observed
			if got := codeOf(verdict(r, false)); got != tc.watch {
				t.Errorf("watch: got %d, want %d", got, tc.watch)
			}
			if got := codeOf(verdict(r, true)); got != tc.wait {
				t.Errorf("wait: got %d, want %d", got, tc.wait)
			}
		})
	}
}

func codeOf(done bool, err error) int {
	exit, ok := errors.AsType[*exitError](err)
	switch {
	case !done:
		return -1
	case ok:
		return exit.code
	default:
		return ExitDone
	}
}

func TestResumeHintIsAboutWhatPausedIt(t *testing.T) {
	r := &nfv1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "r"}, Spec: nfv1.RolloutSpec{State: nfv1.RolloutStatePaused, Attempt: 1}}
	if got := resumeHint(r); !strings.Contains(got, `"state":"Running"`) {
		t.Errorf("paused by a person: got %q", got)
	}
	r.Spec.State = nfv1.RolloutStateRunning
	if got := resumeHint(r); !strings.Contains(got, `"attempt":2`) {
		t.Errorf("paused by failures: got %q", got)
	}
}

func TestScreenRedrawsWhatChanged(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, size: func() (int, int) { return 80, 5 }}
	for _, text := range []string{"a\nb\n", "a\nb\n", "c\n", "1\n2\n3\n4\n5\n6\n"} {
		if err := s.draw(text); err != nil {
			t.Fatal(err)
		}
	}
	want := "\r\x1b[Ja\nb\n" + "\x1b[2A\r\x1b[Jc\n" + "\x1b[1A\r\x1b[J1\n2\n3\n… 3 more lines\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAgentVersions(t *testing.T) {
	h := func(version string) nfv1.Host {
		return nfv1.Host{Status: nfv1.HostStatus{NodeInfo: &nfv1.NodeInfo{AgentVersion: version}}}
	}
	if got, want := agentVersions([]nfv1.Host{h("v2"), h("v1"), h("v2"), {}}), "v1 (1), v2 (2)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := agentVersions(nil); got != "none has reported" {
		t.Errorf("got %q", got)
	}
}

func TestABrokenWatchIsToldAndForgotten(t *testing.T) {
	var errOut bytes.Buffer
	f := &feed{errOut: &errOut, filled: true, lost: map[string]error{}}
	f.answered(t.Context(), hostsResource, errors.New("no route to host"))
	f.answered(t.Context(), hostsResource, errors.New("still no route to host"))
	if got, want := errOut.String(), "connection lost (hosts), trying again: no route to host\n"; got != want {
		t.Errorf("told %q, want %q, once", got, want)
	}
	if got := f.note(); !strings.Contains(got, "still no route to host") {
		t.Errorf("the note is %q", got)
	}
	f.answered(t.Context(), hostsResource, nil)
	if got := f.note(); got != "" {
		t.Errorf("the note stays: %q", got)
	}
	f.redraws = true
	errOut.Reset()
	f.answered(t.Context(), hostsResource, errors.New("again"))
	if errOut.Len() > 0 {
		t.Errorf("a line was written into the frames: %q", errOut.String())
	}
}

func TestFilesAreToldFromNames(t *testing.T) {
	for arg, want := range map[string]bool{
		"-": true, "rollout.yaml": true, "./r": true, "dir/r.yml": true, "r.json": true, `dir\r`: true, "2026-11-23": false, "v1.2.3": false, "yaml": false,
	} {
		if got := isFile(arg); got != want {
			t.Errorf("%q: got %v, want %v", arg, got, want)
		}
	}
}

func TestTheDefaultsOfThePlanAreThoseOfTheManager(t *testing.T) {
	if defaultOfflineAfter != host.DefaultOfflineAfter {
		t.Errorf("got %s, and the manager has %s", defaultOfflineAfter, host.DefaultOfflineAfter)
	}
}
