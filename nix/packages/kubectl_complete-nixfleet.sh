#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# kubectl runs this to complete the arguments of "kubectl nixfleet".
exec kubectl-nixfleet __complete "$@"
