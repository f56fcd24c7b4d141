//go:build !linux

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package deadman

import (
	"context"
	"errors"
)

func rebootNow() error { return errors.New("this machine cannot be rebooted") }

func killCgroups(context.Context, string) error { return nil }
