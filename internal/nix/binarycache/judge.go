// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/nixfleet/nixfleet/internal/nix"
)

// Verdict is what a check of closures found. Verdicts of several paths sum up to the
// worst of them.
type Verdict string

// Verdicts, from best to worst. A definite failure is worse than not knowing: nothing
// that a silent cache could say would help.
const (
	// Verified means that everything is there and trusted.
	Verified Verdict = "Verified"
	// CacheUnreachable means that a cache could not be asked and no other one has the path.
	CacheUnreachable Verdict = "CacheUnreachable"
	// MissingPaths means that every cache answered and none has the path.
	MissingPaths Verdict = "MissingPaths"
	// Invalid means that the only answers about the path were not valid.
	Invalid Verdict = "Invalid"
	// UntrustedSignature means that the path is there and no listed key signed it.
	UntrustedSignature Verdict = "UntrustedSignature"
)

// MaxOffenders is how many offending paths a report names.
const MaxOffenders = 20

func (v Verdict) severity() int {
	return slices.Index([]Verdict{Verified, CacheUnreachable, MissingPaths, Invalid, UntrustedSignature}, v)
}

func worse(a, b Verdict) Verdict {
	if b.severity() > a.severity() {
		return b
	}
	return a
}

// Report is what a check of closures found.
type Report struct {
	// Toplevels has the verdict of each toplevel with all that it needs.
	Toplevels map[nix.StorePath]Verdict

	// Paths is the number of different paths that were found to be needed. What an
	// offending path needs is not known and not among them.
	Paths int64

	// DownloadBytes and UnpackedBytes are the sizes of the trusted paths, each once.
	DownloadBytes, UnpackedBytes int64

	// Offenders are the first paths with another verdict than Verified, by name.
	Offenders []Offender

	// OffenderCount is the number of all of them.
	OffenderCount int
}

// Offender is a path that spoils closures.
type Offender struct {
	Path    nix.StorePath
	Verdict Verdict

	// Toplevel is the first toplevel, by name, whose closure the path spoils.
	Toplevel nix.StorePath

	// Message says what is wrong with it.
	Message string
}

// Verdict is the worst verdict of all toplevels.
func (r Report) Verdict() Verdict {
	verdict := Verified
	for _, v := range r.Toplevels {
		verdict = worse(verdict, v)
	}
	return verdict
}

// VerifiedCount is the number of toplevels that are Verified.
func (r Report) VerifiedCount() int {
	n := 0
	for _, v := range r.Toplevels {
		if v == Verified {
			n++
		}
	}
	return n
}

// grade says what a copy in a cache can be used for.
type grade int

const (
	untrusted        grade = iota
	contentAddressed       // its name proves its contents, but nobody vouches for them
	signed                 // a listed key vouches for it
)

// copyInCache is what one cache has of a path.
type copyInCache struct {
	cache string
	info  Narinfo
	grade grade
}

// gradeCopy judges a copy alone.
func gradeCopy(cache string, info Narinfo, keys nix.PublicKeys) copyInCache {
	c := copyInCache{cache: cache, info: info}
	switch {
	case keys.Verify(info.Fingerprint(), info.Signatures):
		c.grade = signed
	case info.CA != "" && nix.VerifyContentAddress(info.PathInfo, info.CA) == nil:
		c.grade = contentAddressed
	}
	return c
}

// required is the grade that a path needs. A toplevel decides what a host runs, so
// somebody has to vouch for it; the rest follows from the references that were signed.
func required(toplevel bool) grade {
	if toplevel {
		return signed
	}
	return contentAddressed
}

// answers are what all caches said about a path, in their order. Caches behind the first
// copy that is good enough are not asked.
type answers struct {
	copies   []copyInCache
	failures []*CacheError
}

// finding is the judgement about one path in one role.
type finding struct {
	verdict Verdict
	message string
}

// judgePath says whether any copy will do, and what is wrong if none does. The copy is
// the first good one; nil if there is none.
func judgePath(a answers, toplevel bool, keys nix.PublicKeys) (*copyInCache, finding) {
	for i := range a.copies {
		if a.copies[i].grade >= required(toplevel) {
			return &a.copies[i], finding{verdict: Verified}
		}
	}
	for _, failure := range a.failures {
		// It may have a trusted copy.
		if errors.Is(failure, ErrUnreachable) {
			return nil, finding{CacheUnreachable, failure.Error()}
		}
	}
	if len(a.copies) > 0 {
		return nil, finding{UntrustedSignature, describeUntrusted(a.copies[0], keys)}
	}
	for _, failure := range a.failures {
		if errors.Is(failure, ErrInvalid) {
			return nil, finding{Invalid, failure.Error()}
		}
	}
	return nil, finding{MissingPaths, "it is in none of the caches"}
}

func describeUntrusted(c copyInCache, keys nix.PublicKeys) string {
	message := c.cache + ": " + nix.DescribeSignatures(c.info.Signatures, keys)
	switch {
	case c.grade == contentAddressed:
		message += "; it is content-addressed, but a system has to be signed"
	case c.info.CA != "":
		message += "; its content address does not fit it"
	}
	return message
}

// node is a path of the reference graph.
type node struct {
	path     nix.StorePath
	refs     []int32 // of the trusted copy, as are the sizes
	fileSize uint64
	narSize  uint64
	inner    finding  // as a part of other closures
	toplevel *finding // as a system; nil if it is none
}

// judge sums the findings up. Tops are the indexes of the toplevels, sorted by path.
func judge(nodes []node, tops []int32) Report {
	report := Report{Toplevels: make(map[nix.StorePath]Verdict, len(tops)), Paths: int64(len(nodes))}
	for i := range nodes {
		if nodes[i].inner.verdict == Verified {
			report.DownloadBytes += int64(nodes[i].fileSize)
			report.UnpackedBytes += int64(nodes[i].narSize)
		}
	}
	users := reverse(nodes)
	for _, top := range tops {
		report.Toplevels[nodes[top].path] = nodes[top].toplevel.verdict
	}
	for _, verdict := range []Verdict{CacheUnreachable, MissingPaths, Invalid, UntrustedSignature} {
		var bad []int32
		for i := range nodes {
			if nodes[i].inner.verdict == verdict {
				bad = append(bad, int32(i))
			}
		}
		reach(users, bad, func(i int32) {
			if nodes[i].toplevel != nil {
				path := nodes[i].path
				report.Toplevels[path] = worse(report.Toplevels[path], verdict)
			}
		})
	}
	report.Offenders, report.OffenderCount = offenders(nodes, users)
	return report
}

// offenders lists the paths with a failure of their own, the first ones by name.
func offenders(nodes []node, users [][]int32) ([]Offender, int) {
	type offense struct {
		at int32
		finding
	}
	var all []offense
	for i := range nodes {
		n := &nodes[i]
		switch {
		case n.toplevel != nil && n.toplevel.verdict != Verified:
			all = append(all, offense{int32(i), *n.toplevel})
		case n.inner.verdict != Verified:
			all = append(all, offense{int32(i), n.inner})
		}
	}
	slices.SortFunc(all, func(a, b offense) int { return strings.Compare(string(nodes[a.at].path), string(nodes[b.at].path)) })
	var list []Offender
	for _, o := range all[:min(len(all), MaxOffenders)] {
		list = append(list, Offender{
			Path: nodes[o.at].path, Verdict: o.verdict, Message: o.message, Toplevel: firstUser(nodes, users, o.at),
		})
	}
	return list, len(all)
}

// firstUser is the first toplevel by name that needs the path, itself if it is one.
func firstUser(nodes []node, users [][]int32, at int32) nix.StorePath {
	if nodes[at].toplevel != nil {
		return nodes[at].path
	}
	var found []nix.StorePath
	reach(users, []int32{at}, func(i int32) {
		if nodes[i].toplevel != nil {
			found = append(found, nodes[i].path)
		}
	})
	if len(found) == 0 {
		return ""
	}
	return slices.MinFunc(found, cmp.Compare[nix.StorePath])
}

// reverse turns the graph around: who refers to each node.
func reverse(nodes []node) [][]int32 {
	users := make([][]int32, len(nodes))
	for i := range nodes {
		for _, ref := range nodes[i].refs {
			users[ref] = append(users[ref], int32(i))
		}
	}
	return users
}

// reach visits everything that can be reached, the start included, each once. The graph
// may have cycles.
func reach(edges [][]int32, start []int32, visit func(int32)) {
	if len(start) == 0 {
		return
	}
	seen := make([]bool, len(edges))
	stack := slices.Clone(start)
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[i] {
			continue
		}
		seen[i] = true
		visit(i)
		stack = append(stack, edges[i]...)
	}
}
