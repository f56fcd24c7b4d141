// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// world is a namespace in memory: objects as the API server would store them, agents
// that carry out assignments, and a clock that stands still until told. Tests change it
// step by step; checks looks at every decision before it is carried out.
type world struct {
	now      time.Time
	window   time.Duration
	hosts    []*nfv1.Host
	rollouts []*nfv1.Rollout
	releases []*nfv1.Release
	agents   map[string]*simAgent
	made     int // objects so far, to tell them apart

	// broken are the store paths that hosts find unhealthy after activation; "host/path"
	// breaks one host only.
	broken map[string]bool

	// checks are called with every decision.
	checks func(ro *nfv1.Rollout, d Decision)
}

const testWindow = 180 * time.Second

func newWorld(hosts ...string) *world {
	w := &world{
		now:    time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC),
		window: testWindow,
		broken: map[string]bool{},
		agents: map[string]*simAgent{},
	}
	for _, n := range hosts {
		w.addHost(n, nil)
	}
	return w
}

func hostNames(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("host-%03d", i)
	}
	return out
}

func (w *world) serial() int {
	w.made++
	return w.made
}

func (w *world) stamp() metav1.Time { return metav1.NewTime(w.now.Truncate(time.Second)) }

// addHost adds an active host that is online, healthy and runs a system of its own.
func (w *world) addHost(name string, labels map[string]string) *nfv1.Host {
	h := &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "fleet", UID: types.UID(fmt.Sprintf("uid-%s-%d", name, w.serial())), Labels: labels, ResourceVersion: "1"},
		Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux, Lifecycle: nfv1.LifecycleActive},
		Status:     nfv1.HostStatus{ObservedGeneration: -1},
	}
	w.hosts = append(w.hosts, h)
	w.setCondition(h, nfv1.ConditionOnline, metav1.ConditionTrue, nfv1.ReasonLeaseRenewed)
	w.agents[name] = newSimAgent(h.UID, storePath("factory", name))
	w.say(h)
	return h
}

func (w *world) host(name string) *nfv1.Host {
	if h := w.find(name); h != nil {
		return h
	}
	panic("no host " + name)
}

func (w *world) find(name string) *nfv1.Host {
	for _, h := range w.hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

func (w *world) rollout(uid types.UID) *nfv1.Rollout {
	for _, ro := range w.rollouts {
		if ro.UID == uid {
			return ro
		}
	}
	return nil
}

func (w *world) setCondition(h *nfv1.Host, kind string, status metav1.ConditionStatus, reason string) {
	meta.SetStatusCondition(&h.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, LastTransitionTime: w.stamp()})
}

func (w *world) setOnline(name string, online bool) {
	status, reason := metav1.ConditionUnknown, nfv1.ReasonLeaseExpired
	if online {
		status, reason = metav1.ConditionTrue, nfv1.ReasonLeaseRenewed
	}
	w.setCondition(w.host(name), nfv1.ConditionOnline, status, reason)
}

// storePath is a store path that tells the release and the host apart.
func storePath(release, host string) nfv1.StorePath {
	return nfv1.StorePath(fmt.Sprintf("/nix/store/%032d-nixos-system-%s-%s", len(release)+len(host), host, release))
}

// addRelease adds a verified release with a closure for every host that exists.
func (w *world) addRelease(name string) *nfv1.Release {
	rel := &nfv1.Release{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "fleet", UID: types.UID(fmt.Sprintf("uid-%s-%d", name, w.serial())), Generation: 1},
		Spec: nfv1.ReleaseSpec{
			Caches: []nfv1.BinaryCache{{URL: "https://cache.example.org"}},
			Hosts:  map[string]nfv1.StorePath{},
			Source: &nfv1.ReleaseSource{LastModified: w.stamp()},
		},
	}
	for _, h := range w.hosts {
		rel.Spec.Hosts[h.Name] = storePath(name, h.Name)
	}
	rel.Status.ObservedGeneration, rel.Status.VerifiedAt = 1, w.stamp()
	meta.SetStatusCondition(&rel.Status.Conditions, metav1.Condition{Type: nfv1.ConditionVerified, Status: metav1.ConditionTrue, Reason: nfv1.ReasonVerified})
	w.releases = append(w.releases, rel)
	return rel
}

// addRollout adds a rollout with the defaults of the API and the changes of mutate.
func (w *world) addRollout(name, release string, mutate func(*nfv1.RolloutSpec)) *nfv1.Rollout {
	ro := &nfv1.Rollout{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "fleet", UID: types.UID(fmt.Sprintf("uid-%s-%d", name, w.serial())),
			Generation: 1, CreationTimestamp: w.stamp(),
		},
		Spec: nfv1.RolloutSpec{
			Release: release, Selector: &nfv1.HostSelector{},
			Strategy:  nfv1.RolloutStrategy{Type: nfv1.StrategyAllAtOnce},
			OnFailure: nfv1.OnFailurePause, HostTimeoutSeconds: 1800,
			OfflinePolicy: nfv1.OfflinePolicyDefer, OlderRelease: nfv1.OlderReleaseBlock,
			State: nfv1.RolloutStateRunning, Attempt: 1,
		},
		Status: nfv1.RolloutStatus{ObservedGeneration: -1},
	}
	if mutate != nil {
		mutate(&ro.Spec)
	}
	w.rollouts = append(w.rollouts, ro)
	return ro
}

// snapshot is a deep copy of the world, so that a planner that writes to its input, or
// keeps something between runs, is found out.
func (w *world) snapshot(ro *nfv1.Rollout) Snapshot {
	s := Snapshot{Rollout: ro.DeepCopy(), OfflineWindow: w.window, Releases: map[types.UID]*nfv1.Release{}}
	for _, h := range w.hosts {
		s.Hosts = append(s.Hosts, h.DeepCopy())
	}
	for _, r := range w.rollouts {
		s.Rollouts = append(s.Rollouts, r.DeepCopy())
	}
	for _, r := range w.releases {
		c := r.DeepCopy()
		s.Releases[r.UID] = c
		if r.Name == ro.Spec.Release {
			s.Release = c
		}
	}
	return s
}

// plan plans a rollout and carries out the first writes of the decision, or all of them
// if writes is negative. It answers the decision.
func (w *world) plan(ro *nfv1.Rollout, writes int) Decision {
	s, d := w.decide(ro)
	if writes == 0 {
		return d
	}
	w.carryOut(s, d, func(i int) bool { return writes < 0 || i < writes-1 })
	return d
}

// decide plans a rollout. The snapshot is what the decision rests on.
func (w *world) decide(ro *nfv1.Rollout) (Snapshot, Decision) {
	w.recheck(ro)
	s := w.snapshot(ro)
	d := Plan(w.snapshot(ro), w.now)
	if w.checks != nil {
		w.checks(ro, d)
	}
	return s, d
}

// carryOut writes a decision as the controller does: the status, if it changed, and then
// the assignments that are not lost, each only on the object that was planned on. It
// answers false if nothing was written because the rollout is another by now.
func (w *world) carryOut(s Snapshot, d Decision, arrives func(i int) bool) bool {
	ro := w.rollout(s.Rollout.UID)
	if ro == nil || !reflect.DeepEqual(ro, s.Rollout) {
		return false
	}
	ro.Status = *d.Status.DeepCopy()
	if !d.HoldDeletion && !ro.DeletionTimestamp.IsZero() {
		w.rollouts = slices.DeleteFunc(slices.Clone(w.rollouts), func(r *nfv1.Rollout) bool { return r.UID == ro.UID })
	}
	planned := map[types.UID]*nfv1.Host{}
	for _, h := range s.Hosts {
		planned[h.UID] = h
	}
	for i, a := range d.Assignments {
		h := w.find(a.Host.Name)
		if !arrives(i) || h == nil || !reflect.DeepEqual(h, planned[a.Host.UID]) {
			continue
		}
		h.Spec.Desired = a.Desired.DeepCopy()
		h.Generation++
	}
	return true
}

// recheck lets the release controller look at the release of a rollout that is ready for
// its next wave. The verdict stays what it is.
func (w *world) recheck(ro *nfv1.Rollout) {
	for _, rel := range w.releases {
		for _, wave := range ro.Status.Waves {
			if rel.Name == ro.Spec.Release && wave.ReadyAt.After(rel.Status.VerifiedAt.Time) {
				rel.Status.VerifiedAt = w.stamp()
			}
		}
	}
}

// settle plans and lets agents work until nothing changes any more.
func (w *world) settle() {
	for range 1000 {
		changed := false
		for _, ro := range slices.Clone(w.rollouts) {
			before := ro.Status
			d := w.plan(ro, -1)
			changed = changed || len(d.Assignments) > 0 || !reflect.DeepEqual(before, ro.Status)
		}
		for _, h := range w.hosts {
			changed = w.agent(h) || changed
		}
		if !changed {
			return
		}
	}
	panic("the world does not come to rest")
}

func (w *world) advance(d time.Duration) { w.now = w.now.Add(d) }

// running are the names of the hosts that run a release.
func (w *world) running(release string) []string {
	var out []string
	for _, h := range w.hosts {
		if w.agents[h.Name].running == storePath(release, h.Name) {
			out = append(out, h.Name)
		}
	}
	slices.Sort(out)
	return out
}

func setVerified(rel *nfv1.Release, status metav1.ConditionStatus) {
	reason := map[metav1.ConditionStatus]string{
		metav1.ConditionTrue: nfv1.ReasonVerified, metav1.ConditionFalse: nfv1.ReasonMissingPaths, metav1.ConditionUnknown: nfv1.ReasonCacheUnreachable,
	}[status]
	meta.SetStatusCondition(&rel.Status.Conditions, metav1.Condition{Type: nfv1.ConditionVerified, Status: status, Reason: reason})
}

// override lets the controller look at the override of a host.
func (w *world) override(h *nfv1.Host) {
	if d := PlanOverride(h, w.rollouts, w.now); d.Assignment != nil {
		h.Spec.Desired = &d.Assignment.Desired
		h.Generation++
	}
}
