// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

const store = "/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-x"

func TestOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/", http.StatusFound)
		}
	}))
	defer server.Close()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, store), 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\ncase $1 in ok) ;; hang) sleep 600 & wait;; *) echo first; echo \"last $1\"; exit 3;; esac\n"
	if err := os.WriteFile(filepath.Join(root, store, "check"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	address := server.Listener.Addr().String()
	for name, tc := range map[string]struct {
		check Check
		want  string // part of the message; empty: healthy
	}{
		"http":          {check: Check{Type: "http", HTTP: &HTTP{URL: server.URL}, LoopbackOnly: true}},
		"redirect":      {check: Check{Type: "http", HTTP: &HTTP{URL: server.URL + "/moved"}}, want: "status 302 instead of 200"},
		"tcp":           {check: Check{Type: "tcp", TCP: &TCP{Address: address}, LoopbackOnly: true}},
		"not loopback":  {check: Check{Type: "tcp", TCP: &TCP{Address: "192.0.2.1:1"}, LoopbackOnly: true}, want: "loopback"},
		"exec":          {check: Check{Type: "exec", Exec: &Exec{Argv: []string{store + "/check", "ok"}}}},
		"exec fails":    {check: Check{Type: "exec", Exec: &Exec{Argv: []string{store + "/check", "$HOME"}}}, want: "exited with 3; last $HOME"},
		"exec hangs":    {check: Check{Type: "exec", Timeout: time.Second, Exec: &Exec{Argv: []string{store + "/check", "hang"}}}, want: "stopped|did not end"},
		"exec outside":  {check: Check{Type: "exec", Exec: &Exec{Argv: []string{"/bin/sh"}}}, want: "not a path in /nix/store"},
		"exec from API": {check: Check{Type: "exec", LoopbackOnly: true, Exec: &Exec{Argv: []string{store + "/check", "ok"}}}, want: "only from the system"},
		"unknown":       {check: Check{Type: "carrier-pigeon"}, want: "this agent cannot run checks of type carrier-pigeon"},
		"no settings":   {check: Check{Type: "systemd"}, want: "this agent cannot run checks of type systemd"},
	} {
		t.Run(name, func(t *testing.T) {
			got := (&Prober{Root: root}).Once(t.Context(), []Check{tc.check})[0]
			ok := got.Healthy && tc.want == ""
			for _, part := range strings.Split(tc.want, "|") {
				ok = ok || tc.want != "" && !got.Healthy && strings.Contains(got.Message, part)
			}
			if !ok {
				t.Errorf("got %+v, want %q", got, tc.want)
			}
		})
	}
}

func TestFromSpec(t *testing.T) {
	got := FromSpec([]nfv1.HealthCheck{
		{Name: "web", Type: "http", HTTP: &nfv1.HTTPCheck{Port: 80, Scheme: "HTTPS", Path: "/x"}},
		{Name: "units", Type: "systemd", Systemd: &nfv1.SystemdCheck{Units: []string{"a.service"}}},
		{Name: "labels", Type: "launchd", Launchd: &nfv1.LaunchdCheck{Labels: []string{"org.x"}}},
	})
	for _, c := range got {
		if !c.known() {
			t.Errorf("%+v lost its settings", c)
		}
	}
	if got[0].HTTP.URL != "https://127.0.0.1:80/x" || !got[0].LoopbackOnly {
		t.Errorf("got %+v", got[0])
	}
}

func TestParseFileRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ check, want string }{
		"no units":    {`"type":"systemd"`, "systemd.units is not set"},
		"empty units": {`"type":"systemd","systemd":{"units":[]}`, "systemd.units has 0 names"},
		"no unit":     {`"type":"systemd","systemd":{"units":["web"]}`, `"web" cannot be one`},
		"line break":  {`"type":"systemd","systemd":{"units":["a\nb.service"]}`, "cannot be one"},
		"no labels":   {`"type":"launchd"`, "launchd.labels is not set"},
		"a path":      {`"type":"launchd","launchd":{"labels":["../x"]}`, "cannot be one"},
		"no user":     {`"type":"exec","exec":{"argv":["/x"],"user":"a b"}`, "is not the name of a user"},
	} {
		_, err := ParseFile([]byte(`{"checks":[{"name":"a",` + tc.check + `}]}`))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	checks, err := ParseFile([]byte(`{"checks":[{"name":"a","type":"systemd","systemd":{"units":["a@b\\x2dc.service"]}},{"name":"b","type":"launchd","launchd":{"labels":["org.x"]}},{"name":"c","type":"of-tomorrow"}]}`))
	if err != nil || len(checks) != 3 || checks[0].Systemd == nil || checks[1].Launchd == nil {
		t.Errorf("got %+v, %v", checks, err)
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte(`{"checks":[{"name":"a","type":"systemd","systemd":{"units":["a.service"]}},{"name":"b","type":"launchd","launchd":{"labels":["org.x"]}}]}`))
	f.Add([]byte(`{"checks":[{"name":"a","type":"exec","exec":{"argv":["/nix/store/x"],"user":"root"}}]}`))
	f.Add([]byte(`{"checks":[null]}`))
	f.Add([]byte(`{"checks":[{"name":"a","type":"tcp","tcp":{"address":"x:1"},"more":1}]}`))
	f.Add([]byte(`{"checks":[{"name":"a","type":"x","timeoutSeconds":-1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		checks, err := ParseFile(data)
		if err != nil && checks != nil || len(checks) > maxChecks {
			t.Fatalf("%d checks, %v", len(checks), err)
		}
		for _, c := range checks {
			if c.Name == "" || c.Timeout <= 0 || c.Timeout > maxTimeout {
				t.Errorf("got %+v", c)
			}
			if c.Systemd != nil && c.Type == typeSystemd && len(c.Systemd.Units) == 0 || c.Type == typeExec && len(c.Exec.Argv) == 0 {
				t.Errorf("checks nothing: %+v", c)
			}
		}
	})
}
