// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"

	"github.com/nixfleet/nixfleet/internal/identity"
)

var errChecksFailed = errors.New("the agent would not work")

// check tries what the agent needs and prints a line for each. It changes nothing.
func check(ctx context.Context, c Config, configErr error, w io.Writer) error {
	failed := false
	line := func(what string, err error) bool {
		result := "ok"
		if err != nil {
			failed, result = true, "failed: "+err.Error()
		}
		_, _ = fmt.Fprintf(w, "%-14s %s\n", what, result)
		return err == nil
	}
	if !line("configuration", configErr) {
		return errChecksFailed
	}
	line("nix", checkNix())
	line("state", checkState(c))
	if line("identity", checkKey(c)) {
		client, err := newGatewayClient(c)
		if err == nil {
			err = explainGateway(client.Ping(ctx))
		}
		line("gateway", err)
	}
	if failed {
		return errChecksFailed
	}
	return nil
}

func checkNix() error {
	for _, program := range []string{"nix-store", "nix-env"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	return nil
}

// checkState reports whether the journal can be written. The directory is made by the
// agent itself.
func checkState(c Config) error {
	f, err := os.CreateTemp(c.StateDir, ".check-*")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func checkKey(c Config) error {
	_, err := identity.LoadKey(c.IdentityKeyFile)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w; make it with: nixfleet-agent identity", err)
	}
	return err
}

// explainGateway adds what to do to a refusal.
func explainGateway(err error) error {
	var refused *StatusError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("%w; put the line that nixfleet-agent identity prints into spec.identity.publicKeys of the Host", err)
	default:
		return err
	}
}
