// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package etcd

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

func TestZapMessagesReachTheLog(t *testing.T) {
	tests := map[string]struct {
		verbosity int
		stopping  bool
		say       func(*zap.Logger)
		want      []string
	}{
		"warning at rest": {
			say:  func(l *zap.Logger) { l.Warn("slow", zap.String("disk", "sda"), zap.Int("ms", 900)) },
			want: []string{`"level"=0 "msg"="slow" "disk"="sda" "ms"=900`},
		},
		"error at rest": {
			say:  func(l *zap.Logger) { l.Error("failed", zap.Error(errors.New("disk full"))) },
			want: []string{`"msg"="failed" "error"=null "error"="disk full"`},
		},
		"a listener that fails": {
			say:  func(l *zap.Logger) { l.Error(closedListener, zap.Error(errors.New("too many files"))) },
			want: []string{`"msg"="` + closedListener + `" "error"=null "error"="too many files"`},
		},
		"a listener that is closed": {
			stopping: true,
			say:      func(l *zap.Logger) { l.Error(closedListener, zap.Error(errors.New("closed"))) },
		},
		"another error while stopping": {
			stopping: true,
			say:      func(l *zap.Logger) { l.Error("failed", zap.Error(errors.New("disk full"))) },
			want:     []string{`"msg"="failed" "error"=null "error"="disk full"`},
		},
		"information at rest": {
			say: func(l *zap.Logger) { l.Info("started") },
		},
		"information when asked": {
			verbosity: 2,
			say:       func(l *zap.Logger) { l.With(zap.String("member", "one")).Info("started") },
			want:      []string{`"level"=2 "msg"="started" "member"="one"`},
		},
		"debugging is more than information": {
			verbosity: 2,
			say:       func(l *zap.Logger) { l.Debug("applying") },
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			sink := funcr.New(func(_, args string) { got = append(got, args) }, funcr.Options{Verbosity: tc.verbosity})

			var stopping atomic.Bool
			stopping.Store(tc.stopping)

			tc.say(newZapLogger(sink, &stopping))

			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}
