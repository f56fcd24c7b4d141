// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
)

// StoreSource fetches systems into the Nix store of the host and judges them by the
// host's own configuration.
type StoreSource struct {
	// Store and Caches are where systems are kept and where they come from.
	Store  *nix.RealStore
	Caches *binarycache.Client

	// Root is where the host's file system begins.
	Root string

	// Name and Platform are whom a system must be made for.
	Name, Platform string

	// TrustedKeys are the keys whose signature on a system is obeyed; InnerKeys those
	// that the rest of a closure may be signed with.
	TrustedKeys, InnerKeys nix.PublicKeys

	// AllowMissingHostFile accepts systems that do not say whom they were made for.
	AllowMissingHostFile bool

	// AgentUnit is the unit that every system has to start; empty if no system runs the
	// agent.
	AgentUnit string

	// Retry is how often and how patiently a fetch is tried again.
	Retry wait.Backoff

	// Log takes what an administrator of the host should find.
	Log *slog.Logger
}

// DefaultRetry tries a fetch ten times within about four minutes.
func DefaultRetry() wait.Backoff {
	return wait.Backoff{Steps: 10, Duration: 2 * time.Second, Factor: 2, Jitter: 0.2}
}

// longestRetry bounds the time between two tries.
const longestRetry = 40 * time.Second

// Fetch implements Source. A signature is looked for before anything is downloaded, and
// checked again over what the store has registered.
func (s *StoreSource) Fetch(ctx context.Context, path nix.StorePath, urls []nfv1.CacheURL, notes FetchNotes) error {
	path, err := nix.ParseStorePath(string(path))
	if err == nil && path.IsDerivation() {
		err = fmt.Errorf("%s is a plan to build, and no system", path)
	}
	if err != nil {
		return &Refusal{Reason: nfv1.ReasonUnsupported, Err: err}
	}
	caches := make([]string, 0, len(urls))
	for _, u := range urls {
		caches = append(caches, string(u))
	}
	if caches, err = nix.ParseCacheURLs(caches); err != nil {
		return &Refusal{Reason: nfv1.ReasonFetchFailed, Err: err}
	}
	backoff := s.Retry
	for {
		err := s.try(ctx, path, caches, notes.Progress)
		var refusal *Refusal
		if err == nil || ctx.Err() != nil || errors.As(err, &refusal) || backoff.Steps <= 1 {
			return err
		}
		delay := min(backoff.Step(), longestRetry)
		s.Log.Warn("Fetch failed; it is tried again", "storePath", path, "in", delay, "error", err)
		notes.Retry(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

func (s *StoreSource) try(ctx context.Context, path nix.StorePath, caches []string, progress func(nix.FetchProgress)) error {
	valid, err := s.Store.Valid(ctx, path)
	if err != nil {
		return err
	}
	if !valid {
		if err := s.promised(ctx, path, caches); err != nil {
			return err
		}
		if err := s.space(ctx, path, caches); err != nil {
			return err
		}
	}
	opts := nix.RealiseOptions{Root: rootName(path), Caches: caches, PublicKeys: s.InnerKeys.Strings(), Progress: progress}
	if len(caches) == 0 || valid {
		err = s.Store.AddRoot(ctx, opts.Root, path)
	} else {
		err = s.Store.Realise(ctx, path, opts)
	}
	if err != nil {
		return err
	}
	return s.judge(ctx, path, caches)
}

func rootName(path nix.StorePath) string { return "system-" + path.Hash() }

// promised looks whether a cache has the system with a trusted signature. If every
// cache that has it shows no such signature the download is not worth its while.
func (s *StoreSource) promised(ctx context.Context, path nix.StorePath, caches []string) error {
	var untrusted error
	for _, c := range caches {
		info, err := s.Caches.Narinfo(ctx, c, path)
		if err != nil {
			if !errors.Is(err, binarycache.ErrMissing) {
				return fmt.Errorf("ask the caches for %s: %w", path, err)
			}
			continue
		}
		if err := nix.VerifyToplevel(info.PathInfo, nil, s.TrustedKeys); err == nil {
			return nil
		} else if untrusted == nil {
			untrusted = err
		}
	}
	if untrusted != nil {
		return &Refusal{Reason: nfv1.ReasonUntrustedSignature, Err: untrusted}
	}
	return fmt.Errorf("none of %d caches has %s", len(caches), path)
}

// space refuses a closure for which the store has too little room, so that a full disk
// does not take the host down.
func (s *StoreSource) space(ctx context.Context, path nix.StorePath, caches []string) error {
	need, err := s.Caches.DiskNeed(ctx, path, caches, s.Store.Missing)
	if err != nil {
		return err
	}
	have, err := diskOf(s.Store.Physical(nix.StoreDir))
	if err != nil {
		return err
	}
	if err := have.fits(need); err != nil {
		return &Refusal{Reason: nfv1.ReasonDiskPressure, Err: err}
	}
	return nil
}

// judge says whether the system, as it lies in the store, may run on this host.
func (s *StoreSource) judge(ctx context.Context, path nix.StorePath, caches []string) error {
	info, err := s.Store.Info(ctx, path)
	if err != nil {
		return err
	}
	if err := nix.VerifyToplevel(info, nil, s.TrustedKeys); err != nil {
		served, serr := s.Caches.Signatures(ctx, path, caches)
		if err := nix.VerifyToplevel(info, served, s.TrustedKeys); err != nil {
			if serr != nil {
				return errors.Join(err, serr) // a cache that answers later may have it
			}
			return &Refusal{Reason: nfv1.ReasonUntrustedSignature, Err: err}
		}
	}
	return s.fits(nix.OpenClosure(s.Root, path))
}

func (s *StoreSource) fits(c nix.Closure) error {
	id, err := c.HostIdentity()
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.AllowMissingHostFile:
	case err != nil:
		return &Refusal{Reason: nfv1.ReasonWrongHost, Err: fmt.Errorf("whom the system was made for cannot be read: %w", err)}
	case !id.Fits(s.Name, s.Platform):
		return &Refusal{Reason: nfv1.ReasonWrongHost, Err: fmt.Errorf(
			"the system was made for host %q on %q; this is %q on %q", id.Name, id.Platform, s.Name, s.Platform)}
	}
	can, err := c.HasSwitchToConfiguration()
	if err != nil {
		return &Refusal{Reason: nfv1.ReasonUnsupported, Err: err}
	}
	if !can {
		return &Refusal{Reason: nfv1.ReasonUnsupported, Err: fmt.Errorf("%s has no bin/switch-to-configuration", c.Path())}
	}
	return nil
}

// Checks implements Source.
func (s *StoreSource) Checks(path nix.StorePath) ([]health.Check, error) {
	data, err := nix.OpenClosure(s.Root, path).HealthChecks()
	if err != nil || data == nil {
		return nil, err
	}
	return health.ParseFile(data)
}

// Label implements Source.
func (s *StoreSource) Label(path nix.StorePath) string {
	label, err := nix.OpenClosure(s.Root, path).Label()
	if err != nil {
		return ""
	}
	return label
}

// Keep implements Source.
func (s *StoreSource) Keep(ctx context.Context, path nix.StorePath) error {
	return s.Store.AddRoot(ctx, rootName(path), path)
}

// bootParts are the parts of a system that only a boot puts in place.
var bootParts = []string{"kernel", "initrd", "kernel-modules", "kernel-params", "systemd"}

// NeedsReboot implements Source. A part that neither of them has is no difference.
func (s *StoreSource) NeedsReboot(booted, running nix.StorePath) []string {
	if booted == "" || running == "" || booted == running {
		return nil
	}
	var differ []string
	for _, part := range bootParts {
		if s.bootPart(booted, part) != s.bootPart(running, part) {
			differ = append(differ, part)
		}
	}
	return differ
}

// bootPart is what a part of a system is: where its link leads, or the text of its file.
func (s *StoreSource) bootPart(path nix.StorePath, part string) string {
	const most = 64 << 10
	file, err := nix.ResolveInStore(s.Root, path.String()+"/"+part)
	if err != nil {
		return ""
	}
	if part != "kernel-params" {
		return file
	}
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	return string(text)
}

// Forget implements Source.
func (s *StoreSource) Forget(ctx context.Context, keep ...nix.StorePath) error {
	roots, err := s.Store.Roots()
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, p := range keep {
		if p != "" {
			kept[rootName(p)] = true
		}
	}
	for _, r := range roots {
		if kept[r] {
			continue
		}
		if err := s.Store.RemoveRoot(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
