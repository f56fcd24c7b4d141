// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/nixfleet/nixfleet/internal/nix"
)

// Need is what a fetch would take.
type Need struct {
	// Paths is the number of paths to fetch.
	Paths int

	// DownloadBytes is the size of the downloads, in bytes.
	DownloadBytes uint64

	// NarBytes is the size of the paths in the store, in bytes.
	NarBytes uint64

	// LargestNar is the size of the largest of them, in bytes.
	LargestNar uint64
}

// maxNeedPaths bounds what one host may be asked to fetch.
const maxNeedPaths = 200_000

// DiskNeed adds up what has to be fetched of a closure. The function missing returns those
// of the paths that the local store does not have; what a path that is there needs is there
// too and is not asked for. Sizes are what the first cache with the path claims: they are
// for a look at the disk beforehand, not for trust.
//
// The error wraps ErrMissing if no cache has a path, ErrUnreachable if one that may have
// it could not be asked.
func (c *Client) DiskNeed(
	ctx context.Context, path nix.StorePath, caches []string,
	missing func(context.Context, []nix.StorePath) ([]nix.StorePath, error),
) (Need, error) {
	var need Need
	seen := map[nix.StorePath]bool{path: true}
	level := []nix.StorePath{path}
	for len(level) > 0 {
		absent, err := missing(ctx, level)
		if err != nil {
			return Need{}, err
		}
		infos, err := c.first(ctx, absent, caches)
		if err != nil {
			return Need{}, err
		}
		level = nil
		for _, info := range infos {
			need.add(info)
			for _, ref := range info.References {
				if !seen[ref] {
					seen[ref] = true
					level = append(level, ref)
				}
			}
		}
		if len(seen) > maxNeedPaths {
			return Need{}, fmt.Errorf("the closure of %s has more than %d paths", path, maxNeedPaths)
		}
	}
	return need, nil
}

func (n *Need) add(info Narinfo) {
	n.Paths++
	n.DownloadBytes += info.FileSize
	n.NarBytes += info.NarSize
	n.LargestNar = max(n.LargestNar, info.NarSize)
}

// first finds each path in the first cache that has it.
func (c *Client) first(ctx context.Context, paths []nix.StorePath, caches []string) ([]Narinfo, error) {
	infos := make([]Narinfo, len(paths))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.concurrency)
	for i, path := range paths {
		group.Go(func() error {
			var errs []error
			for _, cache := range caches {
				info, err := c.Narinfo(ctx, cache, path)
				if err == nil {
					infos[i] = info
					return nil
				}
				errs = append(errs, err)
			}
			return fmt.Errorf("look for %s: %w", path, errors.Join(errs...))
		})
	}
	return infos, group.Wait()
}

// Signatures collects the signatures of a path from all of the caches, for a check against
// what is registered locally. Those that were found are returned with an error, too: it
// says which caches could not be asked or are not valid.
func (c *Client) Signatures(ctx context.Context, path nix.StorePath, caches []string) ([]string, error) {
	var signatures []string
	var errs []error
	for _, cache := range caches {
		info, err := c.Narinfo(ctx, cache, path)
		if errors.Is(err, ErrMissing) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		signatures = append(signatures, info.Signatures...)
	}
	return signatures, errors.Join(errs...)
}
