// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Numbers of Nix's internal-json log format.
const (
	levelError   = 0
	levelWarning = 1

	activityFileTransfer = 101
	activityCopyPaths    = 103

	resultProgress    = 105
	resultSetExpected = 106
)

// logEvent is a line of the log format.
type logEvent struct {
	Action string            `json:"action"`
	ID     uint64            `json:"id"`
	Type   int               `json:"type"`
	Level  int               `json:"level"`
	Msg    string            `json:"msg"`
	Fields []json.RawMessage `json:"fields"`
}

// mostNumber is more than any store holds, and far from where sums overflow.
const mostNumber = 1 << 50

func (e logEvent) number(n int) int64 {
	var v int64
	if n >= len(e.Fields) || json.Unmarshal(e.Fields[n], &v) != nil || v < 0 || v > mostNumber {
		return 0
	}
	return v
}

func (e logEvent) text(n int) string {
	var v string
	if n >= len(e.Fields) || json.Unmarshal(e.Fields[n], &v) != nil {
		return ""
	}
	return v
}

var logPrefix = []byte("@nix ")

// parseLogEvent reads a line of the log; false if it is none.
func parseLogEvent(line []byte) (logEvent, bool) {
	data, found := bytes.CutPrefix(line, logPrefix)
	var event logEvent
	if !found || json.Unmarshal(data, &event) != nil {
		return logEvent{}, false
	}
	return event, true
}

// fetchLog adds the events of a fetch up.
type fetchLog struct {
	progress  FetchProgress
	transfers map[uint64]int64 // downloads of contents under way, with their bytes so far
	ended     int64            // bytes of downloads that have ended
	copies    uint64           // the activity that counts paths
	messages  messageLog
}

func newFetchLog() *fetchLog {
	return &fetchLog{transfers: make(map[uint64]int64)}
}

// add takes a line of the log and reports whether it changed the progress. Lines that are
// not of the format are messages of other programs.
func (l *fetchLog) add(line []byte) (changed bool) {
	event, ok := parseLogEvent(line)
	if !ok {
		l.messages.addPlain(line)
		return false
	}
	before := l.progress
	switch event.Action {
	case "msg":
		l.message(event)
	case "start":
		l.start(event)
	case "stop":
		l.ended += l.transfers[event.ID]
		delete(l.transfers, event.ID)
	case "result":
		l.result(event)
	}
	return l.progress != before
}

func (l *fetchLog) message(event logEvent) {
	text := cleanMessage(event.Msg)
	switch {
	case strings.HasPrefix(text, "warning:"), event.Level == levelWarning:
		l.messages.addWarning(text)
	case event.Level == levelError:
		l.messages.addError(text)
	}
}

func (l *fetchLog) start(event logEvent) {
	switch event.Type {
	case activityCopyPaths:
		l.copies = event.ID
	case activityFileTransfer:
		// Questions about paths are transfers too, and not part of what is expected.
		url := event.text(0)
		if !strings.HasSuffix(url, ".narinfo") && !strings.HasSuffix(url, "/nix-cache-info") {
			l.transfers[event.ID] = 0
		}
	}
}

func (l *fetchLog) result(event logEvent) {
	switch event.Type {
	case resultSetExpected:
		if event.number(0) == activityFileTransfer {
			l.progress.BytesTotal = event.number(1)
		}
	case resultProgress:
		if event.ID == l.copies {
			l.progress.PathsDone, l.progress.PathsTotal = event.number(0), event.number(1)
			return
		}
		if _, known := l.transfers[event.ID]; known {
			l.transfers[event.ID] = event.number(0)
			l.progress.BytesDone = l.ended
			for _, n := range l.transfers {
				l.progress.BytesDone += n
			}
		}
	}
}
