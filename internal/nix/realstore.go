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
	"strings"
)

// rootsDir is where the garbage-collector roots lie, below the root of the host.
const rootsDir = "nix/var/nix/gcroots/nixfleet"

var rootNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// RealStore is the Nix store of this machine, or one below another root.
type RealStore struct {
	commands
}

var _ Store = (*RealStore)(nil)

// NewStore returns the store whose host begins at root: "/" for the machine's own store,
// any other directory for a store in <root>/nix/store whose paths still read /nix/store.
func NewStore(root string, opts ...Option) *RealStore {
	return &RealStore{commands: newCommands(root, opts)}
}

// Physical implements Store.
func (s *RealStore) Physical(path StorePath) string { return physical(s.root, path) }

// Realise implements Store.
func (s *RealStore) Realise(ctx context.Context, path StorePath, opts RealiseOptions) error {
	args, err := s.realiseArgs(path, opts)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", path, err)
	}
	log := newFetchLog()
	_, err = s.run(ctx, invocation{
		program: "nix-store",
		args:    args,
		what:    "fetch " + path.String(),
		stderr: func(line []byte) {
			if log.add(line) && opts.Progress != nil {
				opts.Progress(log.progress)
			}
		},
	})
	var failed *CommandError
	if errors.As(err, &failed) {
		failed.Message = log.messages.String()
	}
	return err
}

// realiseArgs checks everything once more and makes the command line.
func (s *RealStore) realiseArgs(path StorePath, opts RealiseOptions) ([]string, error) {
	link, err := s.prepareRoot(opts.Root)
	if err != nil {
		return nil, err
	}
	if _, err := ParseStorePath(path.String()); err != nil {
		return nil, err
	}
	if path.IsDerivation() {
		return nil, errors.New("it is a derivation, which Nix would build; give the path that it makes")
	}
	caches, err := ParseCacheURLs(opts.Caches)
	if err != nil {
		return nil, err
	}
	if len(caches) == 0 {
		return nil, errors.New("no binary cache is given")
	}
	keys, err := ParsePublicKeys(opts.PublicKeys)
	if err != nil {
		return nil, err
	}
	return append(s.storeArgs(),
		"--realise", path.String(), "--add-root", link,
		"--option", "substitute", "true",
		"--option", "substituters", strings.Join(caches, " "),
		"--option", "trusted-public-keys", strings.Join(keys.Strings(), " "),
		"--option", "require-sigs", "true",
		// A path that was uploaded after someone asked for it must be found at once.
		"--option", "narinfo-cache-negative-ttl", "0",
		"--option", "connect-timeout", "15",
		// A cache that fails must not keep Nix from asking the next one. There is nothing
		// else to fall back to: no jobs and no builders.
		"--option", "fallback", "true",
		"--option", "builders", "",
		"--max-jobs", "0",
		"--log-format", "internal-json", "-v",
	), nil
}

// Version is the version of Nix, such as 2.28.3.
func (s *RealStore) Version(ctx context.Context) (string, error) {
	out, err := s.run(ctx, invocation{program: "nix-store", args: []string{"--version"}, what: "ask for the version of Nix"})
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return line[strings.LastIndexByte(line, ' ')+1:], nil
}

// Valid implements Store.
func (s *RealStore) Valid(ctx context.Context, path StorePath) (bool, error) {
	missing, err := s.Missing(ctx, []StorePath{path})
	return err == nil && len(missing) == 0, err
}

// Missing returns those of the paths that are not valid, in their order. A valid path has
// everything that it needs.
func (s *RealStore) Missing(ctx context.Context, paths []StorePath) ([]StorePath, error) {
	const most = 500 // Far from the limit on the length of a command line.
	var missing []StorePath
	for chunk := range slices.Chunk(paths, most) {
		args := []string{"--check-validity", "--print-invalid"}
		for _, path := range chunk {
			if _, err := ParseStorePath(path.String()); err != nil {
				return nil, err
			}
			args = append(args, path.String())
		}
		out, err := s.query(ctx, fmt.Sprintf("look for %d paths in the store", len(chunk)), args...)
		if err != nil {
			return nil, err
		}
		printed := fields(out)
		for _, path := range chunk {
			if slices.Contains(printed, path.String()) {
				missing = append(missing, path)
			}
		}
	}
	return missing, nil
}

// Info implements Store.
func (s *RealStore) Info(ctx context.Context, path StorePath) (PathInfo, error) {
	valid, err := s.Valid(ctx, path)
	if err != nil {
		return PathInfo{}, err
	}
	if !valid {
		return PathInfo{}, fmt.Errorf("%s: %w", path, ErrNotValid)
	}
	info := PathInfo{Path: path}
	if info.NarHash, err = s.narHash(ctx, path); err != nil {
		return PathInfo{}, err
	}
	if info.NarSize, err = s.narSize(ctx, path); err != nil {
		return PathInfo{}, err
	}
	if info.References, err = s.references(ctx, path); err != nil {
		return PathInfo{}, err
	}
	info.Signatures, info.SignaturesErr = s.signatures(ctx, path)
	return info, nil
}

func (s *RealStore) narHash(ctx context.Context, path StorePath) (string, error) {
	out, err := s.query(ctx, "read the hash of "+path.String(), "--query", "--hash", path.String())
	if err != nil {
		return "", err
	}
	hash, err := FormatNarHash(strings.TrimSpace(out))
	if err != nil {
		return "", fmt.Errorf("read the hash of %s: %w", path, err)
	}
	return hash, nil
}

func (s *RealStore) narSize(ctx context.Context, path StorePath) (uint64, error) {
	out, err := s.query(ctx, "read the size of "+path.String(), "--query", "--size", path.String())
	if err != nil {
		return 0, err
	}
	size, err := strconv.ParseUint(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the size of %s: %w", path, err)
	}
	return size, nil
}

func (s *RealStore) references(ctx context.Context, path StorePath) ([]StorePath, error) {
	out, err := s.query(ctx, "read the references of "+path.String(), "--query", "--references", path.String())
	if err != nil {
		return nil, err
	}
	var refs []StorePath
	for _, field := range fields(out) {
		ref, err := ParseStorePath(field)
		if err != nil {
			return nil, fmt.Errorf("read the references of %s: %w", path, err)
		}
		refs = append(refs, ref)
	}
	slices.Sort(refs)
	return slices.Compact(refs), nil
}

// signatures reads what only the experimental command tells. Trust does not depend on
// its success: signatures that caches serve are checked against the same facts.
func (s *RealStore) signatures(ctx context.Context, path StorePath) ([]string, error) {
	out, err := s.run(ctx, invocation{
		program: "nix",
		args: append([]string{"--extra-experimental-features", "nix-command"},
			append(s.storeArgs(), "path-info", "--offline", "--json", "--sigs", path.String())...),
		what: "read the signatures of " + path.String(),
	})
	if err != nil {
		return nil, err
	}
	return parseSignatures([]byte(out), path)
}

func (s *RealStore) query(ctx context.Context, what string, args ...string) (string, error) {
	return s.run(ctx, invocation{program: "nix-store", args: append(s.storeArgs(), args...), what: what})
}

// AddRoot implements Store.
func (s *RealStore) AddRoot(ctx context.Context, name string, path StorePath) error {
	what := "root " + path.String() + " as " + name
	if _, err := ParseStorePath(path.String()); err != nil {
		return err
	}
	link, err := s.prepareRoot(name)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if path.IsDerivation() {
		return fmt.Errorf("%s: it is a derivation", what)
	}
	// Through Nix and not by a link of our own, so that a collection that is under way
	// takes notice of it.
	_, err = s.query(ctx, what, "--realise", path.String(), "--add-root", link,
		"--option", "substitute", "false", "--option", "builders", "", "--max-jobs", "0")
	return err
}

// RemoveRoot implements Store.
func (s *RealStore) RemoveRoot(_ context.Context, name string) error {
	link, err := s.rootLink(name)
	if err != nil {
		return err
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the root %s: %w", name, err)
	}
	return nil
}

func (s *RealStore) rootLink(name string) (string, error) {
	if !rootNamePattern.MatchString(name) {
		return "", fmt.Errorf("%q cannot be the name of a root: use letters, digits, dot, dash and underscore", shorten(name))
	}
	return filepath.Join(s.root, rootsDir, name), nil
}

func (s *RealStore) prepareRoot(name string) (string, error) {
	link, err := s.rootLink(name)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return "", fmt.Errorf("make the directory of roots: %w", err)
	}
	return link, nil
}

// Roots are the names of the garbage-collector roots that were made by Realise and
// AddRoot.
func (s *RealStore) Roots() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, rootsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the garbage-collector roots: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}
