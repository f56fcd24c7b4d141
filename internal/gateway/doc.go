// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package gateway is the door through which agents reach the Kubernetes API. It speaks
// a narrow subset of Kubernetes REST over mutual TLS: a host may read its own Host,
// report its status, renew its Lease and record events about itself. The Kubernetes
// API itself is never exposed to hosts.
//
// A request passes these steps, each in a file of its own:
//
//   - filter.go: which request is this, and is it one of the few that exist here?
//   - admission.go, hub.go: does the Host that it names pin the key of the connection?
//   - read.go, stream.go: reads are answered from memory, fed by one upstream watch.
//   - write.go and write_*.go: writes are decoded, checked and built anew; nothing that
//     a host sent is forwarded as it came.
//   - upstream.go: the rebuilt write goes to the API server as one service account,
//     with the host's name as an extra that admission policies check again.
//
// What may not live here: decisions about rollouts, and any right that an agent does
// not need. Enrollment of new keys is not part of this package.
package gateway
