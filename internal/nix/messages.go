// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// messageLog keeps the few lines of Nix's output that explain a failure: errors, and the
// warnings before them, which is where Nix says that a signature was missing.
type messageLog struct {
	errors   []string
	warnings []string
	last     string
}

const (
	maxMessages      = 3
	maxMessageLength = 400
)

var escapeSequences = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// addPlain reads a line as Nix prints it for people.
func (m *messageLog) addPlain(line []byte) {
	text := cleanMessage(string(line))
	switch {
	case text == "":
	case strings.HasPrefix(text, "error:"):
		m.addError(text)
	case strings.HasPrefix(text, "warning:"):
		m.addWarning(text)
	default:
		m.last = text
	}
}

func (m *messageLog) addError(text string) {
	m.errors = appendBounded(m.errors, strings.TrimSpace(strings.TrimPrefix(text, "error:")))
}

func (m *messageLog) addWarning(text string) {
	m.warnings = appendBounded(m.warnings, strings.TrimSpace(strings.TrimPrefix(text, "warning:")))
}

// String is the explanation: the errors, then the warnings; what was printed last if
// there are neither.
func (m *messageLog) String() string {
	all := slices.Concat(m.errors, m.warnings)
	if len(all) == 0 {
		return m.last
	}
	// That something failed is known. It is left out unless nothing says why.
	reasons := slices.DeleteFunc(slices.Clone(all), consequence.MatchString)
	if len(reasons) == 0 {
		reasons = all
	}
	return strings.Join(reasons, "; ")
}

// consequence is how Nix reports that a path could not be made valid, after it said why.
var consequence = regexp.MustCompile(`^build of '[^']*'(, '[^']*')* failed$`)

// appendBounded keeps the last few messages, each once.
func appendBounded(list []string, text string) []string {
	if text == "" || len(list) > 0 && list[len(list)-1] == text {
		return list
	}
	if len(list) == maxMessages {
		list = list[1:]
	}
	return append(list, text)
}

// cleanMessage removes colours, line breaks and everything else that could play tricks on a
// terminal, since a cache has a say in it, and bounds the length.
func cleanMessage(s string) string {
	s = escapeSequences.ReplaceAllString(strings.ToValidUTF8(s, "?"), "")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxMessageLength {
		s = strings.ToValidUTF8(s[:maxMessageLength], "") + "..."
	}
	return s
}
