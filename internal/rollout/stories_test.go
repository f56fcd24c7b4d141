// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestStories plays the stories that every operator of a fleet lives through. Each is
// told in testdata/stories, and its end is asserted here.
func TestStories(t *testing.T) {
	t.Run("canary", canaryStories)
	t.Run("failure", failureStories)
	t.Run("offline", offlineStories)
	t.Run("operator", operatorStories)
	t.Run("change", changeStories)
}

func canaryStories(t *testing.T) {
	tell(t, "canary passes", 4, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", canary)
		s.run()
		s.ends(ro, nfv1.RolloutPhaseSucceeded, "a", 4)
	})
	tell(t, "canary fails and pauses", 4, func(s *story) {
		s.addRelease("a")
		s.breaks("a")
		ro := s.addRollout("r", "a", canary)
		s.run()
		s.ends(ro, nfv1.RolloutPhasePaused, "a", 0)
	})
	tell(t, "canary goes dark", 4, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", canary)
		d := s.plan(ro, -1)
		dark := d.Assignments[0].Host.Name
		s.note("%s is the canary and begins", dark)
		s.agent(s.host(dark))
		s.sleep(dark)
		s.run()
		s.wait(29 * time.Minute)
		s.wait(time.Minute)
		s.wait(24 * time.Hour)
		s.ends(ro, nfv1.RolloutPhasePaused, "a", 0)
	})
	tell(t, "typo in the selector of the canary", 4, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", staged(
			nfv1.RolloutWave{Name: "canary", Selector: &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"ring": "canray"}}},
			nfv1.RolloutWave{Name: "rest"},
		))
		s.run()
		s.wait(24 * time.Hour)
		s.ends(ro, nfv1.RolloutPhaseBlocked, "a", 0)
	})
}

func failureStories(t *testing.T) {
	waves := staged(nfv1.RolloutWave{Name: "first", Size: ptrTo(intstr.FromInt32(2))}, nfv1.RolloutWave{Name: "rest", MaxUnavailable: ptrTo(intstr.FromInt32(2))})
	tell(t, "threshold in the second wave and revert with one host offline", 6, func(s *story) {
		s.deployed("a")
		s.addRelease("b")
		ro := s.addRollout("r", "b", func(spec *nfv1.RolloutSpec) { waves(spec); spec.OnFailure = nfv1.OnFailureRevert })
		s.step(ro)
		first := []string{}
		for _, h := range s.hosts {
			if d := h.Spec.Desired; d != nil && d.Wave == "first" && owner(d) == ro.UID {
				first = append(first, h.Name)
			}
		}
		s.completeAll(first...)
		s.note("whatever comes next does not like b")
		s.breaks("b", slices.DeleteFunc(hostNames(6), func(n string) bool { return slices.Contains(first, n) })...)
		s.step(ro)
		s.sleep(first[0])
		s.run()
		s.ends(ro, nfv1.RolloutPhaseReverted, "a", 5)
		s.wait(24 * time.Hour)
		s.wake(first[0])
		s.run()
		s.ends(ro, nfv1.RolloutPhaseReverted, "a", 6)
	})
	tell(t, "resume after a failure", 4, func(s *story) {
		s.addRelease("a")
		s.breaks("a")
		ro := s.addRollout("r", "a", canary)
		s.run()
		s.wait(time.Hour)
		s.note("what was wrong outside of the system is repaired")
		s.broken = map[string]bool{}
		s.spec(ro, "spec.attempt: 2", func(spec *nfv1.RolloutSpec) { spec.Attempt = 2 })
		s.run()
		s.ends(ro, nfv1.RolloutPhaseSucceeded, "a", 4)
	})
	tell(t, "go on without those that failed", 5, func(s *story) {
		s.addRelease("a")
		s.breaks("a", "host-001", "host-003")
		ro := s.addRollout("r", "a", nil)
		s.run()
		s.spec(ro, "spec.failureThreshold: 2", func(spec *nfv1.RolloutSpec) { spec.FailureThreshold = ptrTo(intstr.FromInt32(2)) })
		s.run()
		s.ends(ro, nfv1.RolloutPhaseSucceeded, "a", 3)
	})
	tell(t, "unhealthy while it soaks", 3, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", staged(nfv1.RolloutWave{Name: "first", Size: ptrTo(intstr.FromInt32(1)), SoakSeconds: 600}, nfv1.RolloutWave{Name: "rest"}))
		s.run()
		s.advance(5 * time.Minute)
		s.ill(s.running("a")[0], metav1.ConditionFalse)
		s.run()
		s.wait(time.Hour)
		s.ends(ro, nfv1.RolloutPhasePaused, "a", 1)
	})
}

func offlineStories(t *testing.T) {
	tell(t, "half of the laptops are offline", 6, func(s *story) {
		s.addRelease("a")
		for i, n := range []string{"host-001", "host-003", "host-005"} { // not at once: that would be an outage
			s.advance(time.Duration(i) * time.Hour)
			s.sleep(n)
		}
		ro := s.addRollout("r", "a", func(spec *nfv1.RolloutSpec) {
			staged(nfv1.RolloutWave{Name: "all", MaxUnavailable: ptrTo(intstr.FromInt32(1))})(spec)
		})
		s.step(ro)
		s.wake("host-001")
		s.run()
		s.ends(ro, nfv1.RolloutPhaseSucceeded, "a", 4)
		s.wait(48 * time.Hour)
		s.wake("host-003")
		s.run()
		s.note("host-005 does not like a")
		s.breaks("a", "host-005")
		s.wait(24 * time.Hour)
		s.wake("host-005")
		s.run()
		s.ends(ro, nfv1.RolloutPhaseSucceeded, "a", 5)
		for _, f := range ro.Status.Failures {
			s.note("failure: %s %s: %s", f.Host, f.Reason, f.Message)
		}
	})
	tell(t, "pause while hosts sleep", 4, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", nil)
		s.step(ro)
		s.sleep("host-000", "host-001")
		s.spec(ro, "spec.state: Paused, because a turns out to be bad", func(spec *nfv1.RolloutSpec) { spec.State = nfv1.RolloutStatePaused })
		s.run()
		s.wait(24 * time.Hour)
		s.wake("host-000", "host-001")
		s.run()
		s.ends(ro, nfv1.RolloutPhasePaused, "a", 2)
	})
	tell(t, "outage of the gateway", 5, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", nil)
		s.step(ro)
		for _, h := range s.hosts {
			s.agent(h)
		}
		s.note("all hosts have begun")
		s.sleep(hostNames(5)...)
		s.run()
		s.wait(3 * time.Hour)
		s.wake("host-000", "host-001", "host-002")
		s.run()
		s.wait(10 * time.Minute)
		s.wake("host-003", "host-004")
		s.run()
		s.ends(ro, nfv1.RolloutPhaseSucceeded, "a", 5)
	})
}

func operatorStories(t *testing.T) {
	tell(t, "approval and soak", 6, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", staged(
			nfv1.RolloutWave{Name: "first", Size: ptrTo(intstr.FromString("20%")), SoakSeconds: 600},
			nfv1.RolloutWave{Name: "rest", Approval: nfv1.WaveApprovalRequired, MaxUnavailable: ptrTo(intstr.FromString("50%"))},
		))
		s.run()
		s.wait(10 * time.Minute)
		s.wait(time.Second)
		s.wait(12 * time.Hour)
		s.spec(ro, "spec.approvedWaves: [rest]", func(spec *nfv1.RolloutSpec) { spec.ApprovedWaves = []string{"rest"} })
		s.run()
		s.ends(ro, nfv1.RolloutPhaseSucceeded, "a", 6)
	})
	tell(t, "cancel in the middle of a wave", 5, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", nil)
		s.step(ro)
		s.agent(s.host("host-001"))
		s.agent(s.host("host-002"))
		s.note("host-001, host-002 have begun")
		s.spec(ro, "spec.state: Cancelled", func(spec *nfv1.RolloutSpec) { spec.State = nfv1.RolloutStateCancelled })
		s.step(ro)
		s.run()
		s.ends(ro, nfv1.RolloutPhaseCancelled, "a", 2)
	})
	tell(t, "cancel in the soak", 5, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", staged(nfv1.RolloutWave{Name: "first", Size: ptrTo(intstr.FromInt32(2)), SoakSeconds: 600}, nfv1.RolloutWave{Name: "rest"}))
		s.run()
		s.spec(ro, "spec.state: Cancelled", func(spec *nfv1.RolloutSpec) { spec.State = nfv1.RolloutStateCancelled })
		s.run()
		s.wait(time.Hour)
		s.ends(ro, nfv1.RolloutPhaseCancelled, "a", 2)
	})
	tell(t, "two rollouts over crossing sets of hosts", 5, func(s *story) {
		s.addRelease("a")
		s.addRelease("b")
		first := s.addRollout("first", "a", func(spec *nfv1.RolloutSpec) {
			spec.Selector, spec.Hosts = nil, []nfv1.HostName{"host-000", "host-001", "host-002"}
			staged(nfv1.RolloutWave{Name: "one", Size: ptrTo(intstr.FromInt32(1)), SoakSeconds: 600}, nfv1.RolloutWave{Name: "rest"})(spec)
		})
		s.advance(time.Second)
		second := s.addRollout("second", "b", func(spec *nfv1.RolloutSpec) {
			spec.Selector, spec.Hosts = nil, []nfv1.HostName{"host-002", "host-003", "host-004"}
		})
		s.run()
		s.wait(10 * time.Minute)
		s.wait(time.Second)
		s.ends(first, nfv1.RolloutPhaseSucceeded, "a", 2)
		s.ends(second, nfv1.RolloutPhaseSucceeded, "b", 3)
	})
}

func changeStories(t *testing.T) {
	tell(t, "hosts come and go", 4, func(s *story) {
		rel := s.addRelease("a")
		ro := s.addRollout("r", "a", staged(
			nfv1.RolloutWave{Name: "first", Size: ptrTo(intstr.FromInt32(2)), SoakSeconds: 600}, nfv1.RolloutWave{Name: "rest"}))
		d, names := s.plan(ro, -1), []string{}
		for _, a := range d.Assignments {
			names = append(names, a.Host.Name)
		}
		s.note("wave first takes %v", names)
		s.note("%s goes into maintenance", names[0])
		s.host(names[0]).Spec.Lifecycle = nfv1.LifecycleMaintenance
		s.run()
		s.note("host-new joins the fleet")
		s.addHost("host-new", nil)
		rel.Spec.Hosts["host-new"] = storePath("a", "host-new")
		s.wait(10 * time.Minute)
		s.wait(time.Second)
		s.note("%s is active again", names[0])
		s.host(names[0]).Spec.Lifecycle = nfv1.LifecycleActive
		s.run()
		s.ends(ro, nfv1.RolloutPhaseSucceeded, "a", 5)
	})
	tell(t, "release deleted and made anew", 4, func(s *story) {
		s.addRelease("a")
		ro := s.addRollout("r", "a", canary)
		s.step(ro)
		s.note("release a is deleted and made anew under the same name")
		s.releases = nil
		s.addRelease("a")
		s.run()
		s.ends(ro, nfv1.RolloutPhaseFailed, "a", 1)
	})
	tell(t, "restored backup", 3, func(s *story) {
		s.addRelease("a")
		backup := (&history{world: s.world}).keep()
		for _, n := range []string{"b", "c"} {
			s.addRelease(n)
			s.addRollout("to-"+n, n, nil)
			s.run()
			s.advance(time.Hour)
		}
		s.note("the API is restored from a backup of the beginning; the hosts are not")
		backup()
		s.releases[0].Status.VerifiedAt = s.stamp()
		ro := s.addRollout("again", "a", func(spec *nfv1.RolloutSpec) { canary(spec) })
		for _, h := range s.hosts {
			s.agent(h)
		}
		s.run()
		s.ends(ro, nfv1.RolloutPhaseSucceeded, "a", 3)
	})
}
