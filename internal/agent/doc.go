// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package agent moves one host: it watches the host's Host object through the gateway,
// fetches the system that is asked for, checks it with the host's own keys, activates
// it, makes sure that it is healthy and can report, and only then commits it to the
// system profile. When anything fails it goes back to what ran before.
//
// decide.go says what is to be done, as a pure function of the journal and the Host, and
// resume.go what becomes of an attempt that a killed agent left open. machine.go, steps.go
// and rollback.go do it, one journalled step at a time: a step is written to disk before
// it is taken, so that an agent that was killed knows where it was. Everything that
// touches the machine is behind the interfaces of ports.go.
//
// drift.go goes back by itself to what was committed last, where the Host's policy says so.
// checks.go says what a system is checked by, in an attempt and at rest. unfit.go is for an
// agent that does not know its configuration, dryrun.go for one that must not act. What an
// administrator of the host sees is in show.go, check.go, metrics.go and notify.go.
//
// How a system is activated is the business of internal/activation, what is healthy of
// internal/health, what a store holds and who signed it of internal/nix.
package agent
