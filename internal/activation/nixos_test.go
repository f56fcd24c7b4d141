// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const system = nix.StorePath("/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01")

func host(t *testing.T, script string) *NixOS {
	t.Helper()
	root := t.TempDir()
	bin := filepath.Join(root, system.String(), "bin")
	for _, dir := range []string{bin, filepath.Join(root, "run")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if script != "" {
		if err := os.WriteFile(filepath.Join(bin, "switch-to-configuration"), []byte("#!/bin/sh\nroot=${0%%/nix/store/*}\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &NixOS{Root: root, Runner: NewRunner(root), LogDir: filepath.Join(root, "log")}
}

func TestActivate(t *testing.T) {
	a := host(t, `echo "$1 $NIXOS_NO_CHECK $NIXOS_INSTALL_BOOTLOADER"; ln -sfn `+system.String()+` $root/run/current-system; exit 4`)
	for verb, run := range map[string]struct {
		do   func() (Result, error)
		want string
	}{
		"test": {func() (Result, error) { return a.Test(t.Context(), attempt.System{Path: system}, time.Minute, "7") }, "test  0"},
		"rollback": {func() (Result, error) {
			return a.TestUnchecked(t.Context(), attempt.System{Path: system}, time.Minute, "7")
		}, "test 1 0"},
		"boot": {func() (Result, error) { return a.Boot(t.Context(), system, time.Minute, "7") }, "boot  0"},
	} {
		got, err := run.do()
		if want := (Result{ExitCode: 4, Output: run.want}); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", verb, got, err, want)
		}
		log, err := os.ReadFile(filepath.Join(a.LogDir, verb+"-7.log"))
		if err != nil || strings.TrimSpace(string(log)) != run.want {
			t.Errorf("%s: log %q, %v", verb, log, err)
		}
	}
	if path, special, err := a.Running(); err != nil || path != system || special != "" {
		t.Errorf("running %q %q %v", path, special, err)
	}
	if path, err := a.Booted(); err != nil || path != "" {
		t.Errorf("booted %q %v", path, err)
	}
}

func TestActivateRetriesWhileLocked(t *testing.T) {
	a := host(t, `test -e $root/tried && exit 0; : >$root/tried; exit 11`)
	if got, err := a.Test(t.Context(), attempt.System{Path: system}, time.Minute, "1"); err != nil || got.ExitCode != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestActivateTimeoutAndBounds(t *testing.T) {
	a := host(t, `head -c 3000000 /dev/zero | tr '\0' x; sleep 600 & wait`)
	a.Runner = &DirectRunner{Grace: time.Millisecond}
	got, err := a.Test(t.Context(), attempt.System{Path: system}, 2*time.Second, "1")
	if err != nil || !got.TimedOut || len(got.Output) > maxOutput {
		t.Errorf("got timeout %v, %d bytes, %v", got.TimedOut, len(got.Output), err)
	}
	if stat, err := os.Stat(filepath.Join(a.LogDir, "test-1.log")); err != nil || stat.Size() != maxLog {
		t.Errorf("log: %v, %v", stat, err)
	}
}

func TestActivateRefuses(t *testing.T) {
	a := host(t, "")
	if _, err := a.Test(t.Context(), attempt.System{Path: system}, time.Minute, "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	if _, err := a.Test(t.Context(), attempt.System{Path: system}, time.Minute, "../1"); err == nil {
		t.Error("an id with a slash was taken")
	}
}

func TestRunningSpecialisation(t *testing.T) {
	a := host(t, "")
	link := filepath.Join(a.Root, "run/current-system")
	for target, want := range map[string]string{
		system.String() + "/specialisation/gnome": "gnome", system.String() + "/specialisation/": "!", "/etc": "!",
	} {
		_ = os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		_, special, err := a.Running()
		if (err != nil) != (want == "!") || err == nil && special != want {
			t.Errorf("%s: %q, %v", target, special, err)
		}
	}
}

// special gives the system a specialisation.
func special(t *testing.T, a *NixOS, child nix.StorePath, name string) {
	t.Helper()
	for _, dir := range []string{filepath.Join(a.Root, child.String(), "bin"), filepath.Join(a.Root, system.String(), "specialisation")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(a.Root, child.String(), "bin", "switch-to-configuration")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho "+name+" $1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(a.Root, child.String()), filepath.Join(a.Root, system.String(), "specialisation", name)); err != nil {
		t.Fatal(err)
	}
}
