// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestUnitWatch looks once a minute, as an agent at rest does.
func TestUnitWatch(t *testing.T) {
	perMinute := func(units ...Unit) func(time.Duration) UnitSnapshot {
		return func(since time.Duration) UnitSnapshot {
			if n := int(since / time.Minute); n < len(units) {
				return UnitSnapshot{Units: units[n : n+1]}
			}
			return UnitSnapshot{}
		}
	}
	well := running("web.service", 0)
	for name, tc := range map[string]struct {
		looks func(time.Duration) UnitSnapshot
		want  string // a letter a look: h healthy, u unhealthy
	}{
		"well":                       {perMinute(well, well, well), "hhh"},
		"fails and is mended":        {perMinute(well, failed("web.service"), failed("web.service"), well, well), "huuhh"},
		"had failed before":          {perMinute(failed("old.service"), failed("old.service")), "hh"},
		"is none of the system":      {perMinute(failed("other.service"), failed("other.service")), "hh"},
		"restarted once":             {perMinute(well, running("web.service", 1), running("web.service", 1)), "hhh"},
		"restarted again and again":  {perMinute(well, running("web.service", 5), running("web.service", 9), running("web.service", 14)), "hhuu"},
		"waits to be restarted":      {perMinute(well, restarting("web.service", 3), restarting("web.service", 8)), "huu"},
		"crash loop that is mended":  {perMinute(running("web.service", 2), restarting("web.service", 8), running("web.service", 8), running("web.service", 8)), "huhh"},
		"began to wait this instant": {perMinute(restarting("web.service", 0), well), "hh"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &Prober{
					Root:  systemRoot(t, "web.service", "old.service"),
					Units: &manager{begin: time.Now(), at: tc.looks},
				}
				var w UnitWatch
				var got strings.Builder
				for range tc.want {
					r := p.Once(t.Context(), []Check{w.Check(target.String(), Baseline{Troubled: []string{"old.service"}})})[0]
					if r.Healthy {
						got.WriteByte('h')
					} else {
						got.WriteByte('u')
						if !slices.Equal(r.Units, []string{"web.service"}) || !strings.Contains(r.Message, "web.service") {
							t.Errorf("it blames %v: %s", r.Units, r.Message)
						}
					}
					<-time.After(time.Minute)
				}
				if got.String() != tc.want {
					t.Errorf("got %s, want %s", got.String(), tc.want)
				}
			})
		})
	}
}

// TestUnitWatchForgetsAnotherSystem starts afresh when another system runs: its counts of
// restarts are others.
func TestUnitWatchForgetsAnotherSystem(t *testing.T) {
	p := &Prober{Root: systemRoot(t, "web.service"), Units: &manager{at: always(running("web.service", 7))}}
	w := UnitWatch{system: "/nix/store/other", last: []Unit{running("web.service", 3)}, doubted: map[string]bool{"web.service": true}}
	if r := p.Once(t.Context(), []Check{w.Check(target.String(), Baseline{})})[0]; !r.Healthy {
		t.Errorf("got %+v", r)
	}
}

// TestUnitWatchWithoutSystemd says so.
func TestUnitWatchWithoutSystemd(t *testing.T) {
	var w UnitWatch
	r := (&Prober{}).Once(t.Context(), []Check{w.Check(target.String(), Baseline{})})[0]
	if r.Healthy || r.Message != "systemd does not run this host" {
		t.Errorf("got %+v", r)
	}
}
