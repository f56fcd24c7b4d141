// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// The events of two downloads that overlap, as Nix 2.8 logs them.
const fetchEvents = `
@nix {"action":"start","fields":["http://c/nix-cache-info"],"id":1,"level":4,"text":"downloading","type":101}
@nix {"action":"result","fields":[21,21,0,0],"id":1,"type":105}
@nix {"action":"stop","id":1}
@nix {"action":"start","fields":["http://c/abc.narinfo"],"id":2,"level":4,"text":"downloading","type":101}
@nix {"action":"result","fields":[576,576,0,0],"id":2,"type":105}
@nix {"action":"start","id":6,"level":0,"text":"","type":102}
@nix {"action":"start","id":8,"level":0,"text":"","type":103}
@nix {"action":"result","fields":[0,2,0,0],"id":8,"type":105}
@nix {"action":"result","fields":[101,408],"id":6,"type":106}
@nix {"action":"result","fields":[100,864],"id":6,"type":106}
@nix {"action":"start","fields":["http://c/nar/a.nar.xz"],"id":12,"level":4,"text":"downloading","type":101}
@nix {"action":"start","fields":["http://c/nar/b.nar.xz"],"id":13,"level":4,"text":"downloading","type":101}
@nix {"action":"result","fields":[100,124,0,0],"id":12,"type":105}
@nix {"action":"result","fields":[84,284,0,0],"id":13,"type":105}
@nix {"action":"result","fields":[124,124,0,0],"id":12,"type":105}
@nix {"action":"stop","id":12}
@nix {"action":"result","fields":[1,2,0,0],"id":8,"type":105}
@nix {"action":"result","fields":[284,284,0,0],"id":13,"type":105}
@nix {"action":"stop","id":13}
@nix {"action":"result","fields":[2,2,0,0],"id":8,"type":105}
`

func TestFetchLogProgress(t *testing.T) {
	log := newFetchLog()
	var seen []FetchProgress
	for line := range strings.Lines(fetchEvents) {
		if log.add([]byte(strings.TrimSpace(line))) {
			seen = append(seen, log.progress)
		}
	}
	want := []FetchProgress{
		{PathsTotal: 2},
		{PathsTotal: 2, BytesTotal: 408},
		{PathsTotal: 2, BytesTotal: 408, BytesDone: 100},
		{PathsTotal: 2, BytesTotal: 408, BytesDone: 184},
		{PathsTotal: 2, BytesTotal: 408, BytesDone: 208},
		{PathsTotal: 2, BytesTotal: 408, BytesDone: 208, PathsDone: 1},
		{PathsTotal: 2, BytesTotal: 408, BytesDone: 408, PathsDone: 1},
		{PathsTotal: 2, BytesTotal: 408, BytesDone: 408, PathsDone: 2},
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if got := log.messages.String(); got != "" {
		t.Errorf("messages: %q", got)
	}
}

func TestFetchLogMessages(t *testing.T) {
	cases := []struct {
		name  string
		lines []string
		want  string
	}{
		{"reason and consequence", []string{
			`@nix {"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m the substitute for 'p' is not signed"}`,
			`@nix {"action":"msg","level":3,"msg":"these paths will be fetched"}`,
			`@nix {"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m build of \u001b[35;1m'p'\u001b[0m failed","raw_msg":"x"}`,
		}, "the substitute for 'p' is not signed"},
		{"consequence alone", []string{`@nix {"action":"msg","level":0,"msg":"error: build of 'p' failed"}`}, "build of 'p' failed"},
		{"plain text", []string{"something", "error: cannot open\tdatabase", "warning: careful"}, "cannot open database; careful"},
		{"nothing useful", []string{"something", "Segmentation fault"}, "Segmentation fault"},
		{"broken JSON", []string{`@nix {"action":`, "@nix []"}, "@nix []"},
		{"the last of many", []string{"error: 1", "error: 2", "error: 3", "error: 3", "error: 4"}, "2; 3; 4"},
		{"endless", []string{"error: " + strings.Repeat("ä", 5000)}, strings.Repeat("ä", 196) + "..."},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			log := newFetchLog()
			for _, line := range tc.lines {
				log.add([]byte(line))
			}
			if got := log.messages.String(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzFetchLog: no line, however broken, stops the reader or makes numbers negative.
func FuzzFetchLog(f *testing.F) {
	for line := range strings.Lines(fetchEvents) {
		f.Add([]byte(line))
	}
	f.Add([]byte(`@nix {"action":"result","fields":[-5,"x",null],"id":6,"type":106}`))
	f.Add([]byte(`@nix {"action":"start","fields":["http://c/nar/c.nar.xz"],"id":14,"type":101}
@nix {"action":"result","fields":[9223372036854775807,1],"id":14,"type":105}
@nix {"action":"stop","id":14}
@nix {"action":"start","fields":["http://c/nar/d.nar.xz"],"id":14,"type":101}
@nix {"action":"result","fields":[9223372036854775807,1],"id":14,"type":105}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		log := newFetchLog()
		for setup := range strings.Lines(fetchEvents) {
			log.add([]byte(setup))
		}
		for part := range bytes.Lines(line) {
			log.add(bytes.TrimSpace(part))
			if p := log.progress; p.PathsDone < 0 || p.PathsTotal < 0 || p.BytesTotal < 0 || p.BytesDone < 0 {
				t.Errorf("progress %+v", p)
			}
		}
		if text := log.messages.String(); strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) || len(text) > 2*maxMessages*(maxMessageLength+10) {
			t.Errorf("messages %q", text)
		}
	})
}

func TestLineWriter(t *testing.T) {
	var lines []string
	w := &lineWriter{emit: func(line []byte) { lines = append(lines, string(line)) }}
	long := strings.Repeat("x", maxLine+10)
	for _, part := range []string{"a", "b\nc\n\n", long, long + "\nlast"} {
		if n, err := w.Write([]byte(part)); err != nil || n != len(part) {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	w.flush()
	if diff := cmp.Diff([]string{"ab", "c", long[:maxLine], "last"}, lines); diff != "" {
		t.Error(diff)
	}
}
