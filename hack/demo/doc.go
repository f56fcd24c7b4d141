// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// The demo does the main job of NixFleet on real parts, on one machine: Nix builds and
// signs the systems of six hosts, a web server serves them as a binary cache, the embedded
// control plane and six agents run as processes of their own, and kubectl applies the
// files of config/samples. Whatever a step promises is then looked up where it counts: on
// the disks of the hosts and in the API.
//
// Only this demonstration lives here. Nothing of the product does, and nothing here
// stands in for a part of it.
package main
