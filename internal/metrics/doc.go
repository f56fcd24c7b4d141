// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package metrics is what the manager tells Prometheus.
//
//   - table.go declares every metric of the manager, the gateway's included: name, type,
//     labels with their values, buckets, help. docs/reference/metrics.md is generated from
//     it, and collectors are made from it, so that neither can say something else.
//   - recorder.go has the counters and histograms, which are observed where a decision is
//     carried out. progress.go finds out, from the stored status and the new one, what has
//     happened; the same step is never counted twice.
//   - fleet.go counts the objects in the cache when Prometheus asks. Only the leader does:
//     two replicas that count the same hosts would be two fleets.
//
// No metric has a label for a host. A label for a rollout exists only while the rollout is
// unfinished, for a bounded number of them, and vanishes with it. Values that come from
// hosts are mapped to a closed set before they become labels.
//
// What may not live here: a registry (callers bring theirs), decisions, and any state that
// a restart of the manager would have to keep.
package metrics
