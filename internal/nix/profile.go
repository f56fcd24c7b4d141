// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

const (
	profilesDir = "nix/var/nix/profiles"
	profileName = "system"
)

var generationPattern = regexp.MustCompile(`^` + profileName + `-([1-9][0-9]{0,17})-link$`)

// RealProfile is the system profile of a host.
type RealProfile struct {
	commands
}

var _ Profile = (*RealProfile)(nil)

// NewProfile returns the system profile of the host that begins at root, see NewStore.
func NewProfile(root string, opts ...Option) *RealProfile {
	return &RealProfile{commands: newCommands(root, opts)}
}

// Link is where the profile's link lies on this machine's file system.
func (p *RealProfile) Link() string {
	return filepath.Join(p.dir(), profileName)
}

func (p *RealProfile) dir() string { return filepath.Join(p.root, profilesDir) }

// Current implements Profile.
func (p *RealProfile) Current(ctx context.Context) (StorePath, int64, error) {
	state, err := p.State(ctx)
	if err != nil {
		return "", 0, err
	}
	if state.Path == "" {
		return "", 0, fmt.Errorf("%s: %w", p.Link(), ErrNoProfile)
	}
	return state.Path, state.Generation, nil
}

// State implements Profile.
func (p *RealProfile) State(context.Context) (ProfileState, error) {
	generations, err := p.generations()
	if err != nil {
		return ProfileState{}, err
	}
	var state ProfileState
	if len(generations) > 0 {
		state.Newest = slices.Max(generations)
	}
	// Links hold logical paths, which need not exist on this machine: they are read one
	// by one and never followed.
	target, err := os.Readlink(p.Link())
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return ProfileState{}, fmt.Errorf("read the profile: %w", err)
	}
	number, ok := generationNumber(target)
	if !ok {
		return ProfileState{}, fmt.Errorf("read the profile: %s points to %q, which is no generation", p.Link(), target)
	}
	state.Generation = number
	state.Path, err = p.generationPath(number)
	if err != nil {
		return ProfileState{}, fmt.Errorf("read the profile: %w", err)
	}
	return state, nil
}

// Set implements Profile.
func (p *RealProfile) Set(ctx context.Context, path StorePath) error {
	if _, err := ParseStorePath(path.String()); err != nil {
		return err
	}
	if path.IsDerivation() {
		return fmt.Errorf("set the profile to %s: it is a derivation", path)
	}
	if err := os.MkdirAll(p.dir(), 0o755); err != nil {
		return fmt.Errorf("set the profile: %w", err)
	}
	// Only what is in the store already: setting a profile is no moment to fetch.
	return p.env(ctx, "set the profile to "+path.String(), "--set", path.String(),
		"--option", "substitute", "false", "--option", "builders", "", "--max-jobs", "0")
}

// Restore implements Profile.
func (p *RealProfile) Restore(ctx context.Context, want ProfileState) error {
	if want.Path == "" {
		return p.remove(ctx, want)
	}
	have, err := p.State(ctx)
	if err != nil {
		return fmt.Errorf("restore the profile: %w", err)
	}
	if have.Path != want.Path || have.Generation != want.Generation {
		if err := p.switchTo(ctx, want); err != nil {
			return err
		}
		if have, err = p.State(ctx); err != nil {
			return fmt.Errorf("restore the profile: %w", err)
		}
		if have.Path != want.Path {
			return fmt.Errorf("restore the profile: it is set to %s after it was set to %s", have.Path, want.Path)
		}
	}
	return p.deleteNewer(ctx, want.Newest, have.Generation)
}

// switchTo goes back by number if the number still means the same, else by path: old
// generations are removed by the weekly garbage collection.
func (p *RealProfile) switchTo(ctx context.Context, want ProfileState) error {
	path, err := p.generationPath(want.Generation)
	if err == nil && path == want.Path {
		number := strconv.FormatInt(want.Generation, 10)
		return p.env(ctx, "set the profile back to generation "+number, "--switch-generation", number)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore the profile: %w", err)
	}
	return p.Set(ctx, want.Path)
}

// deleteNewer removes the generations that were made after the state was taken: boot
// entries are made from every generation, and one that failed must not get one.
func (p *RealProfile) deleteNewer(ctx context.Context, newest, current int64) error {
	generations, err := p.generations()
	if err != nil {
		return err
	}
	args := []string{"--delete-generations"}
	for _, number := range generations {
		if number > newest && number != current {
			args = append(args, strconv.FormatInt(number, 10))
		}
	}
	if len(args) == 1 {
		return nil
	}
	return p.env(ctx, "delete the newer generations of the profile", args...)
}

// remove restores a state without a profile.
func (p *RealProfile) remove(ctx context.Context, want ProfileState) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("restore the profile: %w", context.Cause(ctx))
	}
	generations, err := p.generations()
	if err != nil {
		return err
	}
	links := []string{p.Link()}
	for _, number := range generations {
		if number > want.Newest {
			links = append(links, p.generationLink(number))
		}
	}
	for _, link := range links {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the profile that did not exist before: %w", err)
		}
	}
	return nil
}

func (p *RealProfile) env(ctx context.Context, what string, args ...string) error {
	_, err := p.run(ctx, invocation{
		program: "nix-env",
		args:    append([]string{"--profile", p.Link()}, args...),
		what:    what,
	})
	return err
}

func (p *RealProfile) generationLink(number int64) string {
	return filepath.Join(p.dir(), fmt.Sprintf("%s-%d-link", profileName, number))
}

func (p *RealProfile) generationPath(number int64) (StorePath, error) {
	link := p.generationLink(number)
	target, err := os.Readlink(link)
	if err != nil {
		return "", err
	}
	path, err := ParseStorePath(target)
	if err != nil {
		return "", fmt.Errorf("%s: %w", link, err)
	}
	return path, nil
}

// generations are the numbers of all generations, in no order.
func (p *RealProfile) generations() ([]int64, error) {
	entries, err := os.ReadDir(p.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the generations of the profile: %w", err)
	}
	var numbers []int64
	for _, entry := range entries {
		if number, ok := generationNumber(entry.Name()); ok {
			numbers = append(numbers, number)
		}
	}
	return numbers, nil
}

func generationNumber(link string) (int64, bool) {
	match := generationPattern.FindStringSubmatch(filepath.Base(link))
	if match == nil {
		return 0, false
	}
	number, err := strconv.ParseInt(match[1], 10, 64)
	return number, err == nil
}
