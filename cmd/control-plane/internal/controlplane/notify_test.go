// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controlplane

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
)

func TestNotifierTellsSystemdAndNobodyElseCan(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = systemd.Close() })
	t.Setenv(notifySocket, socket)

	n := takeNotifier(logr.Discard())
	n.ready()
	n.stopping()

	if value, ok := os.LookupEnv(notifySocket); ok {
		t.Errorf("%s is still %q", notifySocket, value)
	}
	var got []string
	for range 2 {
		buf := make([]byte, 64)
		length, err := systemd.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(buf[:length]))
	}
	if diff := cmp.Diff([]string{"READY=1", "STOPPING=1"}, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestNotifierWithoutSystemd(t *testing.T) {
	t.Setenv(notifySocket, "")
	takeNotifier(logr.Discard()).ready()
}
