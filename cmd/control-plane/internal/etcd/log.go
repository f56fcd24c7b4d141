// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package etcd

import (
	"sync/atomic"

	"github.com/go-logr/logr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// etcd tells in detail about each ordinary start and stop; that is for someone
// who debugs it.
const detailVerbosity = 2

// closedListener is what etcd says, as an error, about each of its listeners at
// every orderly stop.
const closedListener = "setting up serving from embedded etcd failed."

// newZapLogger sends etcd's messages into the log of the process.
// While stopping is set, closed listeners are a detail and not an error.
func newZapLogger(log logr.Logger, stopping *atomic.Bool) *zap.Logger {
	// Without the caller: it would be this file.
	return zap.New(&core{log: log, stopping: stopping})
}

// core is a zapcore.Core that writes to a logr.Logger.
type core struct {
	log      logr.Logger
	stopping *atomic.Bool
}

func (c *core) Enabled(level zapcore.Level) bool {
	return level >= zapcore.WarnLevel || c.log.V(verbosity(level)).Enabled()
}

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{log: c.log.WithValues(keysAndValues(fields)...), stopping: c.stopping}
}

func (c *core) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *core) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	values := keysAndValues(fields)
	switch {
	case entry.Message == closedListener && c.stopping.Load():
		c.log.V(detailVerbosity).Info(entry.Message, values...)
	case entry.Level >= zapcore.ErrorLevel:
		c.log.Error(nil, entry.Message, values...)
	default:
		c.log.V(verbosity(entry.Level)).Info(entry.Message, values...)
	}
	return nil
}

func (c *core) Sync() error { return nil }

func verbosity(level zapcore.Level) int {
	switch {
	case level >= zapcore.WarnLevel:
		return 0
	case level == zapcore.InfoLevel:
		return detailVerbosity
	default:
		return detailVerbosity + 2
	}
}

func keysAndValues(fields []zapcore.Field) []any {
	values := make([]any, 0, 2*len(fields))
	for _, field := range fields {
		encoder := zapcore.NewMapObjectEncoder()
		field.AddTo(encoder)
		for key, value := range encoder.Fields {
			values = append(values, key, value)
		}
	}
	return values
}
