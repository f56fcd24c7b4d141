// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	// maxPaths bounds a walk. A fleet of thousands of hosts has some hundred thousand.
	maxPaths = 2_000_000

	// downAfter is after how many failures in a row a cache is not asked any more in this
	// walk: a cache that hangs would otherwise be waited for at every path.
	downAfter = 5
)

// Closure checks that the closures of all toplevels can be fetched whole from the caches
// and are trusted: every path is in one of the caches, signed by one of the keys or named
// by its contents, and each toplevel is signed by one of the keys whatever its name. A
// path counts as found if any of the caches has a good copy: a missing, untrusted or
// invalid one in the first does not hide that of the next.
//
// What was found wrong is in the report. An error means that there is no report: ctx
// ended, or the arguments are not valid.
func (c *Client) Closure(ctx context.Context, toplevels []nix.StorePath, caches []string, keys nix.PublicKeys) (Report, error) {
	caches, err := nix.ParseCacheURLs(caches)
	if err != nil {
		return Report{}, err
	}
	w := &walk{client: c, keys: keys, index: make(map[nix.StorePath]int32)}
	for _, url := range caches {
		w.caches = append(w.caches, &cacheState{url: url})
	}
	if err := w.checkCaches(ctx); err != nil {
		return Report{}, err
	}
	toplevels = slices.Clone(toplevels)
	slices.Sort(toplevels)
	toplevels = slices.Compact(toplevels)
	var tops []int32
	for _, path := range toplevels {
		i := w.add(path)
		w.nodes[i].toplevel = &finding{}
		tops = append(tops, i)
	}
	if err := w.run(ctx); err != nil {
		return Report{}, err
	}
	return judge(w.nodes, tops), nil
}

// walk goes through the graph breadth first, all paths of one distance at a time.
type walk struct {
	client *Client
	keys   nix.PublicKeys
	caches []*cacheState
	nodes  []node
	index  map[nix.StorePath]int32
}

// cacheState is what is known of a cache in this walk.
type cacheState struct {
	url string

	mu       sync.Mutex
	failures int         // unreachable in a row
	down     *CacheError // not asked any more, and why
}

func (s *cacheState) givenUp() *CacheError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *cacheState) note(failure *CacheError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failure == nil || !errors.Is(failure, ErrUnreachable) {
		s.failures = 0
		return
	}
	if s.failures++; s.failures >= downAfter && s.down == nil {
		s.down = failure
	}
}

// checkCaches gives up those that are no caches for our store or that do not answer.
func (w *walk) checkCaches(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, cache := range w.caches {
		group.Go(func() error {
			failure, err := asCacheError(w.client.CheckCache(ctx, cache.url))
			cache.down = failure
			return err
		})
	}
	return group.Wait()
}

func (w *walk) add(path nix.StorePath) int32 {
	if i, known := w.index[path]; known {
		return i
	}
	i := int32(len(w.nodes))
	w.index[path] = i
	w.nodes = append(w.nodes, node{path: path})
	return i
}

func (w *walk) run(ctx context.Context) error {
	for done := 0; done < len(w.nodes); {
		if len(w.nodes) > maxPaths {
			return fmt.Errorf("the closures have more than %d paths", maxPaths)
		}
		level := w.nodes[done:]
		results := make([]answers, len(level))
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(w.client.concurrency)
		for i := range level {
			group.Go(func() error {
				var err error
				results[i], err = w.ask(groupCtx, level[i].path, level[i].toplevel != nil)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for i, result := range results {
			w.settle(done+i, result)
		}
		done += len(results)
	}
	return nil
}

// ask asks the caches in their order until one has a copy that is good enough.
func (w *walk) ask(ctx context.Context, path nix.StorePath, toplevel bool) (answers, error) {
	var a answers
	for _, cache := range w.caches {
		if down := cache.givenUp(); down != nil {
			a.failures = append(a.failures, down)
			continue
		}
		info, err := w.client.Narinfo(ctx, cache.url, path)
		failure, err := asCacheError(err)
		if err != nil {
			return answers{}, err
		}
		cache.note(failure)
		if failure != nil {
			a.failures = append(a.failures, failure)
			continue
		}
		found := gradeCopy(cache.url, info, w.keys)
		a.copies = append(a.copies, found)
		if found.grade >= required(toplevel) {
			break
		}
	}
	return a, nil
}

// settle judges a path and adds what it refers to. References of a path that is not
// trusted are not followed: anyone could have made them up.
func (w *walk) settle(i int, a answers) {
	if w.nodes[i].toplevel != nil {
		_, *w.nodes[i].toplevel = judgePath(a, true, w.keys)
	}
	found, inner := judgePath(a, false, w.keys)
	w.nodes[i].inner = inner
	if found == nil {
		return
	}
	refs := make([]int32, 0, len(found.info.References))
	for _, ref := range found.info.References {
		refs = append(refs, w.add(ref)) // May move the nodes.
	}
	w.nodes[i].refs = refs
	w.nodes[i].fileSize, w.nodes[i].narSize = found.info.FileSize, found.info.NarSize
}

// asCacheError tells what a cache did wrong from what ended the walk.
func asCacheError(err error) (*CacheError, error) {
	var failure *CacheError
	if errors.As(err, &failure) {
		return failure, nil
	}
	return nil, err
}
