// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Names of the metrics.
const (
	ManagerLeading        = "nixfleet_manager_leading"
	Hosts                 = "nixfleet_hosts"
	HostAssignments       = "nixfleet_host_assignments"
	HostProblems          = "nixfleet_host_problems"
	HostFailures          = "nixfleet_host_failures_total"
	Releases              = "nixfleet_releases"
	Rollouts              = "nixfleet_rollouts"
	RolloutInfo           = "nixfleet_rollout_info"
	RolloutHosts          = "nixfleet_rollout_hosts"
	RolloutFirstAssigned  = "nixfleet_rollout_first_assignment_seconds"
	RolloutDuration       = "nixfleet_rollout_duration_seconds"
	WaveDuration          = "nixfleet_rollout_wave_duration_seconds"
	PlanDuration          = "nixfleet_plan_duration_seconds"
	Assignments           = "nixfleet_assignments_total"
	Writes                = "nixfleet_writes_total"
	GatewayRequests       = "nixfleet_gateway_requests_total"
	GatewayRequestSeconds = "nixfleet_gateway_request_duration_seconds"
	GatewayRefused        = "nixfleet_gateway_refused_total"
	GatewayOpenStreams    = "nixfleet_gateway_open_streams"
)

// Type is the Prometheus type of a metric.
type Type string

// Types of metrics.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

// Scope says which replicas of the manager have a metric.
type Scope string

const (
	// Leader metrics count what the leader sees or does. Other replicas do not have them,
	// or have them at zero.
	Leader Scope = "leader"
	// Replica metrics are about the replica that serves them.
	Replica Scope = "each replica"
)

// Label is a label of a metric.
type Label struct {
	Name string
	// Values are all that the label can have; empty if what bounds them is Bound.
	Values []string
	// Bound says what bounds the values, where they cannot be listed.
	Bound string
}

// Definition declares a metric.
type Definition struct {
	Name   string
	Type   Type
	Scope  Scope
	Labels []Label
	// Buckets are the upper bounds of a histogram, in the unit of its name.
	Buckets []float64
	Help    string
}

func (d Definition) labelNames() []string {
	var names []string
	for _, l := range d.Labels {
		names = append(names, l.Name)
	}
	return names
}

// Values of labels.
const (
	other = "Other"

	connectionOnline    = "Online"
	connectionOffline   = "Offline"
	connectionNeverSeen = "NeverSeen"

	assignmentNone    = "None"
	assignmentWaiting = "Waiting"
	assignmentMoving  = "Moving"
	assignmentRunning = "Running"
	assignmentDrifted = "Drifted"
	assignmentFailed  = "Failed"

	problemUnhealthy = "Unhealthy"

	resultAccepted = "Accepted"
	resultConflict = "Conflict"
	resultFailed   = "Failed"
)

const (
	minute = 60.0
	hour   = 60 * minute
	day    = 24 * hour
)

// Most is how many unfinished rollouts have series of their own. Older ones come first.
const Most = 100

// Table declares every metric of the manager.
func Table() []Definition {
	return slices.Concat(fleetTable(), rolloutTable(), workTable(), gatewayTable())
}

func namespaceLabel() Label {
	return Label{Name: "namespace", Bound: "namespaces with such objects"}
}

func rolloutLabel() Label {
	return Label{Name: "rollout", Bound: "the 100 oldest unfinished rollouts"}
}

func fleetTable() []Definition {
	return []Definition{{
		Name: ManagerLeading, Type: Gauge, Scope: Replica,
		Help: "1 in the replica that runs the controllers, 0 in the others.",
	}, {
		Name: Hosts, Type: Gauge, Scope: Leader,
		Labels: []Label{namespaceLabel(), {Name: "lifecycle", Values: lifecycles()}, {Name: "connection", Values: connections()}},
		Help:   "Hosts by lifecycle and by whether their agent is heard of. NeverSeen are those whose agent has not come yet or is not expected.",
	}, {
		Name: HostAssignments, Type: Gauge, Scope: Leader,
		Labels: []Label{namespaceLabel(), {Name: "state", Values: assignmentStates()}},
		Help: "Hosts that have an agent, by what became of their assignment: None if nothing is asked of the host, Waiting until its agent has " +
			"taken it up, Moving until there is an outcome, Running if it runs what it was asked to, Drifted if it did and runs something else " +
			"now, Failed if the attempt did not succeed.",
	}, {
		Name: HostProblems, Type: Gauge, Scope: Leader,
		Labels: []Label{namespaceLabel(), {Name: "problem", Values: problems()}},
		Help:   "Hosts that have an agent and report a problem, by problem. A host with two problems counts twice. Offline hosts count by their last report.",
	}, {
		Name: Releases, Type: Gauge, Scope: Leader,
		Labels: []Label{namespaceLabel(), {Name: "verification", Values: verifications()}},
		Help:   "Releases by the reason of their condition Verified.",
	}}
}

func rolloutTable() []Definition {
	return []Definition{{
		Name: Rollouts, Type: Gauge, Scope: Leader,
		Labels: []Label{namespaceLabel(), {Name: "phase", Values: phases()}},
		Help:   "Rollouts by phase.",
	}, {
		Name: RolloutInfo, Type: Gauge, Scope: Leader,
		Labels: []Label{
			namespaceLabel(), rolloutLabel(), {Name: "phase", Values: unfinishedPhases()},
			{Name: "reason", Bound: "reasons of events.md, else Other"},
		},
		Help: "1 for each unfinished rollout, with its phase and the reason of its condition Ready.",
	}, {
		Name: RolloutHosts, Type: Gauge, Scope: Leader,
		Labels: []Label{namespaceLabel(), rolloutLabel(), {Name: "count", Values: hostCounts()}},
		Help:   "The counts in status.hosts of each unfinished rollout.",
	}, {
		Name: RolloutFirstAssigned, Type: Histogram, Scope: Leader,
		Buckets: []float64{1, 2, 5, 10, 30, minute, 5 * minute, 15 * minute, hour, 4 * hour, day},
		Help:    "Time from the creation of a rollout to its first assignment.",
	}, {
		Name: RolloutDuration, Type: Histogram, Scope: Leader,
		Labels:  []Label{{Name: "phase", Values: finishedPhases()}},
		Buckets: []float64{minute, 5 * minute, 15 * minute, hour / 2, hour, 2 * hour, 4 * hour, 8 * hour, day, 3 * day, 7 * day},
		Help:    "Time from the creation of a rollout to its end, by the phase in which it ended. Its count is how many ended so.",
	}, {
		Name: WaveDuration, Type: Histogram, Scope: Leader,
		Buckets: []float64{30, minute, 2 * minute, 5 * minute, 10 * minute, 20 * minute, hour / 2, hour, 2 * hour, 4 * hour, 8 * hour, day, 3 * day},
		Help:    "Time from the start of a wave to the end of its last host, the soak left out. Waves without hosts do not count.",
	}, {
		Name: HostFailures, Type: Counter, Scope: Leader,
		Labels: []Label{{Name: "reason", Values: failureReasons()}},
		Help:   "Hosts that failed in a rollout, by reason. A host that is tried again and fails again counts again.",
	}}
}

func workTable() []Definition {
	return []Definition{{
		Name: PlanDuration, Type: Histogram, Scope: Leader,
		Buckets: prometheus.ExponentialBuckets(0.00025, 2, 12),
		Help:    "Time taken to plan a rollout once, without reading and writing objects. Its count is how many plans were made.",
	}, {
		Name: Assignments, Type: Counter, Scope: Leader,
		Labels: []Label{{Name: "intent", Values: intents()}},
		Help:   "Assignments that the API server has accepted, by what they ask of the host.",
	}, {
		Name: Writes, Type: Counter, Scope: Leader,
		Labels: []Label{{Name: "kind", Values: []string{"Host", "Release", "Rollout"}}, {Name: "result", Values: results()}},
		Help: "Writes of the rollout controller, by kind of object and result. Conflict: the object had changed or gone since the plan, " +
			"which is planned anew. Failed: anything else; the write may have been stored.",
	}}
}

func gatewayTable() []Definition {
	verb := Label{Name: "verb", Bound: "verbs of the requests that are served, else other"}
	resource := Label{Name: "resource", Bound: "resources of the requests that are served, else other"}
	return []Definition{{
		Name: GatewayRequests, Type: Counter, Scope: Replica,
		Labels: []Label{verb, resource, {Name: "code", Bound: "HTTP codes"}},
		Help:   "Requests of agents that have been answered, by verb, resource and HTTP code. Requests that the gateway does not serve have verb and resource other.",
	}, {
		Name: GatewayRequestSeconds, Type: Histogram, Scope: Replica,
		Labels:  []Label{verb, resource},
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		Help:    "Time taken to answer a request, watches left out.",
	}, {
		Name: GatewayRefused, Type: Counter, Scope: Replica,
		Labels: []Label{{Name: "cause", Bound: "causes of gateway.md"}},
		Help:   "Requests that were not carried out, by cause.",
	}, {
		Name: GatewayOpenStreams, Type: Gauge, Scope: Replica,
		Help: "Watches that are open.",
	}}
}

func lifecycles() []string {
	return texts(nfv1.LifecyclePending, nfv1.LifecycleProvisioning, nfv1.LifecycleActive, nfv1.LifecycleMaintenance, nfv1.LifecycleDecommissioned)
}

func connections() []string {
	return []string{connectionOnline, connectionOffline, connectionNeverSeen}
}

func assignmentStates() []string {
	return []string{assignmentNone, assignmentWaiting, assignmentMoving, assignmentRunning, assignmentDrifted, assignmentFailed}
}

func problems() []string {
	return []string{problemUnhealthy, nfv1.ConditionDrifted, nfv1.ConditionRebootRequired, nfv1.ConditionDiskPressure, nfv1.ConditionStalled}
}

func verifications() []string {
	return []string{
		nfv1.ReasonVerified, nfv1.ReasonVerifying, nfv1.ReasonVerificationSkipped, nfv1.ReasonMissingPaths, nfv1.ReasonUntrustedSignature,
		nfv1.ReasonInvalid, nfv1.ReasonCacheUnreachable, nfv1.ReasonInternalError, other,
	}
}

func phases() []string { return slices.Concat(unfinishedPhases(), finishedPhases()) }

func unfinishedPhases() []string {
	return texts(nfv1.RolloutPhasePending, nfv1.RolloutPhaseProgressing, nfv1.RolloutPhaseSoaking, nfv1.RolloutPhaseAwaitingApproval,
		nfv1.RolloutPhaseBlocked, nfv1.RolloutPhasePaused, nfv1.RolloutPhaseReverting, nfv1.RolloutPhaseCancelling)
}

func finishedPhases() []string {
	return texts(nfv1.RolloutPhaseSucceeded, nfv1.RolloutPhaseFailed, nfv1.RolloutPhaseReverted, nfv1.RolloutPhaseCancelled)
}

func hostCounts() []string {
	return []string{"Total", "Assigned", "Succeeded", "Failed", "Deferred", "Skipped", "Unassigned"}
}

func intents() []string { return texts(nfv1.IntentDeploy, nfv1.IntentRevert, nfv1.IntentNone) }

func results() []string { return []string{resultAccepted, resultConflict, resultFailed} }

func texts[S ~string](values ...S) []string {
	out := make([]string, 0, len(values))
	for _, v := range values {
		out = append(out, string(v))
	}
	return out
}
