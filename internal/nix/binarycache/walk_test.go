// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nixfleet/nixfleet/internal/nix"
)

// Paths that are named by their contents, as Nix made them.
var (
	caSystem = nix.PathInfo{
		Path: "/nix/store/7mbdg5f0zhfkzqim3ns58bv39p3c3kfa-nixos-system-x", NarSize: 100, NarHash: narHash,
		References: []nix.StorePath{"/nix/store/7mbdg5f0zhfkzqim3ns58bv39p3c3kfa-nixos-system-x", caDep.Path},
	}
	caDep = nix.PathInfo{
		Path: "/nix/store/hic7pqzjfm72hcxd5s4x77raa07v8vvb-dep", NarSize: 100,
		NarHash: "sha256:1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8h",
	}
)

const (
	caSystemAddress = "fixed:r:sha256:1f6650hqcg8f80w1853v1d6l4nk7zz8rw4hzahlk06w0wja49a3k"
	caDepAddress    = "fixed:r:sha256:1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8h"
)

// short is a report with the names of paths instead of the paths.
type short struct {
	Toplevels map[string]Verdict
	Paths     int64
	Download  int64
	Unpacked  int64
	Offenders []string // name: verdict, for toplevel
}

func shortReport(r Report) short {
	s := short{Toplevels: map[string]Verdict{}, Paths: r.Paths, Download: r.DownloadBytes, Unpacked: r.UnpackedBytes}
	for p, v := range r.Toplevels {
		s.Toplevels[p.Name()] = v
	}
	for _, o := range r.Offenders {
		s.Offenders = append(s.Offenders, o.Path.Name()+": "+string(o.Verdict)+", for "+o.Toplevel.Name())
	}
	return s
}

func TestClosure(t *testing.T) {
	key, other, impostor := newKey(t, "fleet"), newKey(t, "other"), newKey(t, "fleet")
	cases := []struct {
		name      string
		fill      func(a, b *server)
		toplevels []nix.StorePath
		want      short
		message   string // part of the first offender's
	}{
		{
			name: "diamond, cycle, reference to itself, shared by two systems",
			fill: func(a, _ *server) {
				a.put(entry{name: "one", refs: []string{"one", "l", "r"}, key: &key, size: 1000}, entry{name: "two", refs: []string{"r"}, key: &key},
					entry{name: "l", refs: []string{"base"}, key: &key}, entry{name: "r", refs: []string{"base", "cycle"}, key: &key},
					entry{name: "base", key: &key}, entry{name: "cycle", refs: []string{"r"}, key: &key})
			},
			toplevels: paths("two", "one", "two"),
			want:      short{Toplevels: map[string]Verdict{"one": Verified, "two": Verified}, Paths: 6, Download: 750, Unpacked: 1500},
		},
		{
			name: "a part is in the second cache alone",
			fill: func(a, b *server) {
				a.put(entry{name: "one", refs: []string{"dep"}, key: &key})
				b.put(entry{name: "dep", key: &key})
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": Verified}, Paths: 2, Download: 100, Unpacked: 200},
		},
		{
			name: "bad copies in the first cache do not hide good ones",
			fill: func(a, b *server) {
				a.put(entry{name: "one", refs: []string{"evil"}, key: &impostor}, entry{name: "dep"})
				a.set(file(path("base")), "<html>")
				b.put(entry{name: "one", refs: []string{"dep"}, key: &key}, entry{name: "dep", refs: []string{"base"}, key: &key}, entry{name: "base", key: &key})
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": Verified}, Paths: 3, Download: 150, Unpacked: 300},
		},
		{
			name:      "nothing there",
			fill:      func(*server, *server) {},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": MissingPaths}, Paths: 1, Offenders: []string{"one: MissingPaths, for one"}},
			message:   "in none of the caches",
		},
		{
			name: "a shared part is missing, another system is whole",
			fill: func(a, _ *server) {
				a.put(entry{name: "one", refs: []string{"l"}, key: &key}, entry{name: "two", refs: []string{"l"}, key: &key},
					entry{name: "l", refs: []string{"gone"}, key: &key}, entry{name: "whole", key: &key})
			},
			toplevels: paths("one", "two", "whole"),
			want: short{
				Toplevels: map[string]Verdict{"one": MissingPaths, "two": MissingPaths, "whole": Verified}, Paths: 5, Download: 200, Unpacked: 400,
				Offenders: []string{"gone: MissingPaths, for " + min(path("one"), path("two")).Name()},
			},
		},
		{
			name: "unsigned system, whose references are not believed",
			fill: func(a, _ *server) {
				a.put(entry{name: "one", refs: []string{"made-up"}})
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": UntrustedSignature}, Paths: 1, Offenders: []string{"one: UntrustedSignature, for one"}},
			message:   "it is not signed",
		},
		{
			name:      "system signed by another key",
			fill:      func(a, _ *server) { a.put(entry{name: "one", key: &other}) },
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": UntrustedSignature}, Paths: 1, Offenders: []string{"one: UntrustedSignature, for one"}},
			message:   `signed by "other" only`,
		},
		{
			name:      "system signed by another key of the same name",
			fill:      func(a, _ *server) { a.put(entry{name: "one", key: &impostor}) },
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": UntrustedSignature}, Paths: 1, Offenders: []string{"one: UntrustedSignature, for one"}},
			message:   "is not valid for these contents",
		},
		{
			name: "unsigned part",
			fill: func(a, _ *server) {
				a.put(entry{name: "one", refs: []string{"dep"}, key: &key}, entry{name: "dep"})
			},
			toplevels: paths("one"),
			want: short{
				Toplevels: map[string]Verdict{"one": UntrustedSignature}, Paths: 2, Download: 50, Unpacked: 100,
				Offenders: []string{"dep: UntrustedSignature, for one"},
			},
			message: "it is not signed",
		},
		{
			name: "unsigned part with an address that does not fit",
			fill: func(a, _ *server) {
				a.put(entry{name: "one", refs: []string{"dep"}, key: &key}, entry{name: "dep", ca: caDepAddress})
			},
			toplevels: paths("one"),
			want: short{
				Toplevels: map[string]Verdict{"one": UntrustedSignature}, Paths: 2, Download: 50, Unpacked: 100,
				Offenders: []string{"dep: UntrustedSignature, for one"},
			},
			message: "content address does not fit",
		},
		{
			name: "content-addressed part",
			fill: func(a, _ *server) {
				a.putInfo(nix.PathInfo{Path: path("one"), NarHash: narHash, NarSize: 100, References: []nix.StorePath{caSystem.Path}}, &key, "")
				a.putInfo(caSystem, nil, caSystemAddress)
				a.putInfo(caDep, nil, caDepAddress)
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": Verified}, Paths: 3, Download: 150, Unpacked: 300},
		},
		{
			name: "content-addressed system",
			fill: func(a, _ *server) {
				a.putInfo(caSystem, nil, caSystemAddress)
				a.putInfo(caDep, nil, caDepAddress)
			},
			toplevels: []nix.StorePath{caSystem.Path},
			want: short{
				Toplevels: map[string]Verdict{"nixos-system-x": UntrustedSignature}, Paths: 2, Download: 100, Unpacked: 200,
				Offenders: []string{"nixos-system-x: UntrustedSignature, for nixos-system-x"},
			},
			message: "a system has to be signed",
		},
		{
			name: "content-addressed system that is signed in the second cache",
			fill: func(a, b *server) {
				a.putInfo(caSystem, nil, caSystemAddress)
				a.putInfo(caDep, nil, caDepAddress)
				b.putInfo(caSystem, &key, caSystemAddress)
			},
			toplevels: []nix.StorePath{caSystem.Path},
			want:      short{Toplevels: map[string]Verdict{"nixos-system-x": Verified}, Paths: 2, Download: 100, Unpacked: 200},
		},
		{
			name: "garbage",
			fill: func(a, _ *server) {
				a.put(entry{name: "one", refs: []string{"dep"}, key: &key})
				a.set(file(path("dep")), "<html>for sale</html>")
			},
			toplevels: paths("one"),
			want: short{
				Toplevels: map[string]Verdict{"one": Invalid}, Paths: 2, Download: 50, Unpacked: 100, Offenders: []string{"dep: Invalid, for one"},
			},
			message: "does not begin with StorePath",
		},
		{
			name: "the narinfo of another path",
			fill: func(a, _ *server) {
				a.put(entry{name: "two", key: &key})
				a.set(file(path("one")), a.files[file(path("two"))])
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": Invalid}, Paths: 1, Offenders: []string{"one: Invalid, for one"}},
			message:   "it is about",
		},
		{
			name: "one cache fails, the other has it all",
			fill: func(a, b *server) {
				a.fail("*", http.StatusInternalServerError)
				b.put(entry{name: "one", key: &key})
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": Verified}, Paths: 1, Download: 50, Unpacked: 100},
		},
		{
			name: "one cache fails, the other lacks a part",
			fill: func(a, b *server) {
				a.fail("*", http.StatusBadGateway)
				b.put(entry{name: "one", refs: []string{"dep"}, key: &key})
			},
			toplevels: paths("one"),
			want: short{
				Toplevels: map[string]Verdict{"one": CacheUnreachable}, Paths: 2, Download: 50, Unpacked: 100,
				Offenders: []string{"dep: CacheUnreachable, for one"},
			},
			message: "status 502",
		},
		{
			name: "one cache fails, the other has an untrusted copy",
			fill: func(a, b *server) {
				a.fail(file(path("one")), http.StatusServiceUnavailable)
				b.put(entry{name: "one"})
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": CacheUnreachable}, Paths: 1, Offenders: []string{"one: CacheUnreachable, for one"}},
			message:   "status 503",
		},
		{
			name: "a definite failure beats not knowing",
			fill: func(a, b *server) {
				a.put(entry{name: "one", refs: []string{"dark", "unsigned"}, key: &key}, entry{name: "unsigned"})
				a.fail(file(path("dark")), http.StatusServiceUnavailable)
			},
			toplevels: paths("one"),
			want: short{
				Toplevels: map[string]Verdict{"one": UntrustedSignature}, Paths: 3, Download: 50, Unpacked: 100,
				Offenders: []string{"unsigned: UntrustedSignature, for one", "dark: CacheUnreachable, for one"},
			},
		},
		{
			name: "S3 says forbidden of what is not there",
			fill: func(a, b *server) {
				a.fail(file(path("one")), http.StatusForbidden)
				b.put(entry{name: "one", key: &key})
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": Verified}, Paths: 1, Download: 50, Unpacked: 100},
		},
		{
			name: "a cache of another store is no cache",
			fill: func(a, _ *server) {
				a.put(entry{name: "one", key: &key})
				a.set("/nix-cache-info", "StoreDir: /gnu/store\n")
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": Invalid}, Paths: 1, Offenders: []string{"one: Invalid, for one"}},
			message:   "is for the store",
		},
		{
			name: "a web server without a cache",
			fill: func(a, _ *server) {
				delete(a.files, "/nix-cache-info")
			},
			toplevels: paths("one"),
			want:      short{Toplevels: map[string]Verdict{"one": Invalid}, Paths: 1, Offenders: []string{"one: Invalid, for one"}},
			message:   "is this a binary cache",
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a, b := newServer(t), newServer(t)
			tc.fill(a, b)
			report, err := testClient().Closure(t.Context(), tc.toplevels, []string{a.url, b.url}, key.keys(t))
			if err != nil {
				t.Fatal(err)
			}
			got := shortReport(report)
			sortLikePaths(&tc.want, report)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if tc.message != "" && !strings.Contains(report.Offenders[0].Message, tc.message) {
				t.Errorf("message %q, want %q", report.Offenders[0].Message, tc.message)
			}
			again, err := testClient().Closure(t.Context(), tc.toplevels, []string{a.url, b.url}, key.keys(t))
			if diff := cmp.Diff(report, again); diff != "" || err != nil {
				t.Errorf("the second report is another one: %v\n%s", err, diff)
			}
		})
	}
}

// sortLikePaths puts wanted offenders in the order of their paths, which the names do not
// tell, and checks that the report has that order.
func sortLikePaths(want *short, report Report) {
	order := map[string]int{}
	for i, o := range report.Offenders {
		order[o.Path.Name()] = i
	}
	sorted := make([]string, len(want.Offenders))
	for _, text := range want.Offenders {
		name, _, _ := strings.Cut(text, ":")
		if i, ok := order[name]; ok && i < len(sorted) && sorted[i] == "" {
			sorted[i] = text
			continue
		}
		return
	}
	if len(sorted) > 0 {
		want.Offenders = sorted
	}
}

func TestClosureAsksOncePerPath(t *testing.T) {
	key := newKey(t, "fleet")
	a, b := newServer(t), newServer(t)
	a.put(entry{name: "one", refs: []string{"dep"}, key: &key}, entry{name: "two", refs: []string{"dep"}, key: &key}, entry{name: "dep", key: &key})
	if _, err := testClient().Closure(t.Context(), paths("one", "two"), []string{a.url, b.url, a.url + "/"}, key.keys(t)); err != nil {
		t.Fatal(err)
	}
	if n := a.asked(file(path("dep"))); n != 1 {
		t.Errorf("the shared part was asked for %d times", n)
	}
	if n := b.total(); n != 1 { // nix-cache-info
		t.Errorf("the second cache got %d requests though the first has it all", n)
	}
}

func TestClosureGivesASilentCacheUp(t *testing.T) {
	key := newKey(t, "fleet")
	a := newServer(t)
	names := make([]string, 200)
	for i := range names {
		names[i] = "dep-" + strings.Repeat("x", i%50+1) + string(rune('a'+i/50))
	}
	a.put(entry{name: "one", refs: names, key: &key})
	for _, name := range names {
		a.fail(file(path(name)), http.StatusInternalServerError)
	}
	report, err := testClient(WithConcurrency(1), WithAttempts(2)).Closure(t.Context(), paths("one"), []string{a.url}, key.keys(t))
	if err != nil {
		t.Fatal(err)
	}
	if report.Verdict() != CacheUnreachable || report.OffenderCount != len(names) || len(report.Offenders) != MaxOffenders {
		t.Errorf("verdict %s with %d offenders, %d listed", report.Verdict(), report.OffenderCount, len(report.Offenders))
	}
	if want := 2 + 2*downAfter; a.total() != want {
		t.Errorf("%d requests, want %d", a.total(), want)
	}
}

func TestClosureRefusesArguments(t *testing.T) {
	key := newKey(t, "fleet")
	_, err := testClient().Closure(t.Context(), paths("one"), []string{"http://127.0.0.1:1?trusted=1"}, key.keys(t))
	if !errors.Is(err, nix.ErrInvalidCacheURL) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("leadership lost")
	cancel(stop)
	if _, err := testClient().Closure(ctx, paths("one"), []string{newServer(t).url}, key.keys(t)); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
}

func TestClosureOfNothing(t *testing.T) {
	report, err := testClient().Closure(t.Context(), nil, []string{newServer(t).url}, nil)
	if err != nil || report.Verdict() != Verified || report.Paths != 0 {
		t.Errorf("got %+v, %v", report, err)
	}
}
