// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the stories in testdata anew, to be read before they are committed")

// story is a world whose events are written down as they happen. What is written is
// compared with testdata/stories, where a person can read how a rollout behaves.
type story struct {
	*world
	t     *testing.T
	began time.Time
	text  strings.Builder
	told  map[string]string
}

// tell plays a story and compares it with the one on disk.
func tell(t *testing.T, name string, hosts int, play func(*story)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		s := &story{t: t, world: newWorld(hostNames(hosts)...), told: map[string]string{}}
		s.began = s.now
		play(s)
		file := filepath.Join("testdata", "stories", strings.ReplaceAll(name, " ", "-")+".txt")
		if *update {
			if err := os.WriteFile(file, []byte(s.text.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v; a new story is written with -update", err)
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(s.text.String(), "\n")); diff != "" {
			t.Fatalf("the story is another one (-told before +now); if it is right, run with -update:\n%s", diff)
		}
	})
}

func (s *story) line(who, format string, args ...any) {
	fmt.Fprintf(&s.text, "%-8s %-10s %s\n", "+"+s.now.Sub(s.began).String(), who, fmt.Sprintf(format, args...))
}

// note writes what the world or a person does.
func (s *story) note(format string, args ...any) { s.line("--", format, args...) }

// wait lets time go by.
func (s *story) wait(d time.Duration) {
	s.advance(d)
	s.run()
}

// run lets planner and hosts work until nothing changes any more.
func (s *story) run() {
	for range 200 {
		changed := false
		for _, ro := range slices.Clone(s.rollouts) {
			changed = s.step(ro) || changed
		}
		for _, h := range s.hosts {
			changed = s.work(h) || changed
		}
		if !changed {
			return
		}
	}
	s.t.Fatal("the story does not come to an end")
}

// step plans one rollout and tells what it decided.
func (s *story) step(ro *nfv1.Rollout) bool {
	before := ro.Status.DeepCopy()
	d := s.plan(ro, -1)
	if text := fmt.Sprintf("%s: %s", d.Status.Phase, d.Status.Message); s.told[ro.Name] != text {
		s.told[ro.Name] = text
		s.line(ro.Name, "%s", text)
	}
	for _, a := range d.Assignments {
		what := string(a.Desired.Intent)
		if a.Desired.StorePath != "" {
			what += " " + releaseIn(a.Desired.StorePath)
		}
		if a.Desired.Wave != "" {
			what += ", wave " + a.Desired.Wave
		}
		s.line(ro.Name, "  %s: %s, revision %d", a.Host.Name, what, a.Desired.Revision)
	}
	return len(d.Assignments) > 0 || !cmp.Equal(before, &ro.Status)
}

func releaseIn(path nfv1.StorePath) string {
	return string(path)[strings.LastIndex(string(path), "-")+1:]
}

// work lets a host do one thing and tells of outcomes.
func (s *story) work(h *nfv1.Host) bool {
	changed := s.agent(h)
	if a := h.Status.Attempt; changed && a != nil && a.Outcome != "" {
		text := fmt.Sprintf("%s, runs %s", a.Outcome, releaseIn(s.agents[h.Name].running))
		if key := fmt.Sprintf("%s/%d", h.Name, a.Revision); s.told[key] != text {
			s.told[key] = text
			s.line(h.Name, "%s", text)
		}
	}
	return changed
}

func (s *story) sleep(names ...string) {
	s.note("silent: %s", strings.Join(names, ", "))
	for _, n := range names {
		s.setOnline(n, false)
	}
}

func (s *story) wake(names ...string) {
	s.note("back: %s", strings.Join(names, ", "))
	for _, n := range names {
		s.setOnline(n, true)
	}
}

// breaks lets every host find a release unhealthy, or only those named.
func (s *story) breaks(release string, hosts ...string) {
	if len(hosts) == 0 {
		hosts = hostNames(len(s.hosts))
	}
	for _, h := range hosts {
		s.broken[string(storePath(release, h))] = true
	}
}

// spec lets an operator change a rollout.
func (s *story) spec(ro *nfv1.Rollout, what string, change func(*nfv1.RolloutSpec)) {
	s.note("%s", what)
	change(&ro.Spec)
	ro.Generation++
}

// deployed brings the fleet to a release, without words.
func (s *story) deployed(release string) {
	s.addRelease(release)
	s.addRollout("before", release, nil)
	s.settle()
	s.rollouts = nil
	s.advance(time.Hour)
	s.began = s.now
}

func (s *story) ends(ro *nfv1.Rollout, phase nfv1.RolloutPhase, release string, hosts int) {
	s.t.Helper()
	if ro.Status.Phase != phase || len(s.running(release)) != hosts {
		s.t.Fatalf("%s ends %s with %d hosts on %s, want %s with %d\n%s", ro.Name, ro.Status.Phase, len(s.running(release)), release, phase, hosts, s.text.String())
	}
	s.note("%s is %s; %d of %d hosts run %s", ro.Name, phase, hosts, len(s.hosts), release)
}

func (s *story) ill(name string, status metav1.ConditionStatus) {
	s.note("health of %s: %s", name, status)
	s.setHealth(name, status)
}

// completeAll lets hosts bring to an end what they were asked.
func (s *story) completeAll(names ...string) {
	for _, n := range names {
		for more := true; more; {
			more = s.work(s.host(n))
		}
	}
}
