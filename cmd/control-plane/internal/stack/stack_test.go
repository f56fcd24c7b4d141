// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package stack

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
)

// recorder notes in which order parts end.
type recorder struct {
	ended []string
}

func (r *recorder) part(name string) (string, func(context.Context) error) {
	return name, func(ctx context.Context) error {
		<-ctx.Done()
		// Parts end one after the other, so that this needs no lock; the race
		// detector would tell.
		r.ended = append(r.ended, name)
		return nil
	}
}

func TestStopGoesFromTopToBottom(t *testing.T) {
	r := &recorder{}
	s := New(t.Context(), logr.Discard())
	for _, name := range []string{"etcd", "API server", "manager"} {
		s.Start(r.part(name))
	}

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff([]string{"manager", "API server", "etcd"}, r.ended); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestCancellingTheParentStopsNoPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(t.Context())
		r := &recorder{}
		s := New(parent, logr.Discard())
		s.Start(r.part("etcd"))

		cancel()
		<-s.Context().Done()
		synctest.Wait()
		if r.ended != nil {
			t.Errorf("%v ended before Stop", r.ended)
		}

		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestThePartThatFailsIsTheCause(t *testing.T) {
	full := errors.New("disk full")
	tests := map[string]struct {
		err  error
		want string
	}{
		"with an error": {err: full, want: "etcd: disk full"},
		"without":       {want: "etcd: it stopped without being asked"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := &recorder{}
			s := New(t.Context(), logr.Discard())
			s.Start("etcd", func(context.Context) error { return tc.err })
			s.Start(r.part("API server"))

			<-s.Context().Done()

			cause := context.Cause(s.Context())
			if cause.Error() != tc.want {
				t.Errorf("cause is %q, want %q", cause, tc.want)
			}
			if tc.err != nil && !errors.Is(cause, tc.err) {
				t.Errorf("%v does not wrap %v", cause, tc.err)
			}
			if err := s.Stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
			if diff := cmp.Diff([]string{"API server"}, r.ended); diff != "" {
				t.Errorf("the other part was not stopped:\n%s", diff)
			}
		})
	}
}

func TestAPartThatHangsDoesNotKeepTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		release := make(chan struct{})
		s := New(t.Context(), logr.Discard())
		s.Start(r.part("etcd"))
		s.Start("manager", func(context.Context) error { <-release; return nil })

		err := s.Stop()

		if err == nil || !strings.Contains(err.Error(), "manager did not stop within") {
			t.Errorf("got %v, want an error that names the manager", err)
		}
		if diff := cmp.Diff([]string{"etcd"}, r.ended); diff != "" {
			t.Errorf("ended (-want +got):\n%s", diff)
		}
		close(release)
	})
}

func TestStopTellsWhatWentWrong(t *testing.T) {
	s := New(t.Context(), logr.Discard())
	s.Start("etcd", func(ctx context.Context) error { <-ctx.Done(); return errors.New("cannot sync") })
	s.Start("API server", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })

	err := s.Stop()

	if err == nil || err.Error() != "stop etcd: cannot sync" {
		t.Errorf("got %v", err)
	}
}
