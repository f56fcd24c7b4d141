// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"time"

	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/identity"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
)

var errChecksFailed = errors.New("the agent would not work, or the host is not healthy; see the lines that say failed")

// checkList prints a line for each thing that was looked at.
type checkList struct {
	w      io.Writer
	failed bool
}

func (l *checkList) line(what, result string) { _, _ = fmt.Fprintf(l.w, "%-14s %s\n", what, result) }

func (l *checkList) ok(what, note string) {
	if note != "" {
		note = ": " + note
	}
	l.line(what, "ok"+note)
}

// warn is for what the agent can do without.
func (l *checkList) warn(what, text string) { l.line(what, "warning: "+text) }

// result answers false if it failed.
func (l *checkList) result(what, note string, err error) bool {
	if err == nil {
		l.ok(what, note)
		return true
	}
	l.failed = true
	l.line(what, "failed: "+err.Error())
	return false
}

// check tries what the agent needs, and the health of the host. It changes nothing.
func check(ctx context.Context, c Config, configErr error, w io.Writer) error {
	l := &checkList{w: w}
	if !l.result("configuration", "", configErr) {
		return errChecksFailed
	}
	version, err := checkNix(ctx, c)
	l.result("nix", version, err)
	l.result("state", c.StateDir, checkState(c))
	note, err := checkProfile(ctx, c)
	l.result("profile", note, err)
	l.systemd(ctx, c)
	if l.result("identity", c.IdentityKeyFile, checkKey(c)) {
		client, err := newGatewayClient(c)
		if err == nil {
			err = explainGateway(client.Ping(ctx))
		}
		l.result("gateway", c.Server, err)
	}
	journal, err := NewJournalFile(c.StateDir, time.Now).Read()
	l.result("journal", "", err)
	l.caches(ctx, journal)
	l.health(ctx, c, journal)
	if l.failed {
		return errChecksFailed
	}
	return nil
}

func checkNix(ctx context.Context, c Config) (string, error) {
	for _, program := range []string{"nix-store", "nix-env"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%w; install Nix, or put it into the PATH of the agent's unit", err)
		}
	}
	home, err := os.MkdirTemp("", "nixfleet-check-") // where Nix leaves what it pleases
	if err != nil {
		return "", err
	}
	c.StateDir = home
	version, err := nix.NewStore(c.Root, c.nixOptions()...).Version(ctx)
	return version, errors.Join(err, os.RemoveAll(home))
}

// checkState reports whether the journal can be written. The directory is made by the
// agent itself.
func checkState(c Config) error {
	f, err := os.CreateTemp(c.StateDir, ".check-*")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; run this as root, and look whether the disk is full or read-only", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func checkProfile(ctx context.Context, c Config) (string, error) {
	path, n, err := nix.NewProfile(c.Root, c.nixOptions()...).Current(ctx)
	switch {
	case errors.Is(err, nix.ErrNoProfile):
		return "there is none yet; the first system that is committed makes it", nil
	case err != nil:
		return "", err
	default:
		return fmt.Sprintf("generation %d is %s", n, path), nil
	}
}

// systemd says whether somebody goes back if the agent cannot.
func (l *checkList) systemd(ctx context.Context, c Config) {
	runs, err := systemdAnswers(ctx)
	if c.Root != "/" || !runs {
		l.warn("systemd", "it does not run this host: there is no dead man's switch, and nobody goes back if the agent is gone")
		return
	}
	l.result("systemd", "the dead man's switch can be armed", err)
}

func checkKey(c Config) error {
	_, err := identity.LoadKey(c.IdentityKeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; make it with: nixfleet-agent identity", err)
	case errors.Is(err, identity.ErrInsecureFile):
		return fmt.Errorf("%w; chmod 600 %s", err, c.IdentityKeyFile)
	default:
		return err
	}
}

// explainGateway adds what to do to a refusal.
func explainGateway(err error) error {
	var refused *StatusError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return fmt.Errorf("%w; look at server, caFile, the clock of this machine, and the firewalls on the way", err)
	}
	switch refused.Code {
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("%w; put the line that nixfleet-agent identity prints into spec.identity.publicKeys of the Host", err)
	default:
		return err
	}
}

// caches asks those that the last order named: the configuration names none.
func (l *checkList) caches(ctx context.Context, j Journal) {
	if j.Host == nil || j.Host.Spec.Desired == nil || len(j.Host.Spec.Desired.Caches) == 0 {
		l.ok("caches", "none is known yet; they come with the first order")
		return
	}
	client := binarycache.NewClient()
	for _, cache := range j.Host.Spec.Desired.Caches {
		err := client.CheckCache(ctx, string(cache))
		if err != nil {
			err = fmt.Errorf("%w; the last order named it, and the next fetch may need it", err)
		}
		l.result("cache", string(cache), err)
	}
}

// health runs the checks of what runs, and those of the Host as the agent knew it last.
func (l *checkList) health(ctx context.Context, c Config, j Journal) {
	running, specialisation, err := (&activation.NixOS{Root: c.Root}).Running()
	if err != nil || running == "" {
		l.ok("health", "no system of NixOS runs, so there is nothing to check")
		return
	}
	checks, err := (&StoreSource{Root: c.Root}).Checks(running)
	if !l.result("running", attempt.System{Path: running, Specialisation: specialisation}.String(), err) {
		return
	}
	if j.Host != nil {
		checks = append(checks, health.FromSpec(j.Host.Spec.HealthChecks)...)
	}
	for _, r := range newProber(c, clock.RealClock{}).Once(ctx, checks) {
		if r.Healthy {
			l.result("health", r.Name, nil)
		} else {
			l.result("health", "", fmt.Errorf("%s: %s", r.Name, r.Message))
		}
	}
}
