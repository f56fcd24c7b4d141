// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package view

import (
	"strings"
	"time"
	"unicode"

	"github.com/mattn/go-runewidth"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Options say for whom a text is made.
type Options struct {
	// Now is the time that ages are counted from.
	Now time.Time
	// Width is the width of the terminal in columns; 0 is no terminal and no limit.
	Width int
	// Color adds colors.
	Color bool
	// Wide shows every column, whatever the width.
	Wide bool
	// Namespaces shows the namespace of each object.
	Namespaces bool
	// StaleAfter is how long a host may be silent until that is pointed out; 0 is for ever.
	StaleAfter time.Duration
}

// ellipsis ends a text that was cut off.
const ellipsis = "…"

// narrow counts characters of ambiguous width as one column, as terminals outside East
// Asia do, whatever the environment says: the same objects give the same text.
func narrow() *runewidth.Condition { return &runewidth.Condition{} }

func textWidth(s string) int { return narrow().StringWidth(s) }

// clean makes a text from the API harmless: control characters, which could move the
// cursor or change colors, and the marks that reverse the direction of writing become
// a replacement character. Line breaks and tabs become spaces.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return unicode.ReplacementChar
		default:
			return r
		}
	}, s)
}

// cut shortens a text to a width; 0 is no limit.
func cut(s string, width int) string {
	if width <= 0 || textWidth(s) <= width {
		return s
	}
	return narrow().Truncate(s, width, ellipsis)
}

// pad fills a text with spaces up to a width.
func pad(s string, width int) string { return narrow().FillRight(s, width) }

// wrap breaks a text between words into lines of a width; 0 is no limit. A word that is
// longer than a line, such as a store path or a command, stays whole: it is to be copied.
func wrap(s string, width int) []string {
	words := strings.Fields(s)
	if width <= 0 || len(words) == 0 {
		return []string{strings.Join(words, " ")}
	}
	var lines []string
	line := words[0]
	for _, word := range words[1:] {
		if textWidth(line)+1+textWidth(word) > width {
			lines = append(lines, line)
			line = word
			continue
		}
		line += " " + word
	}
	return append(lines, line)
}

// indented wraps a text and begins its first line with first and the others with
// as many spaces.
func indented(first, s string, width int) string {
	margin := textWidth(first)
	room := 0
	if width > 0 {
		room = max(width-margin, 20)
	}
	var b strings.Builder
	for i, line := range wrap(s, room) {
		if i == 0 {
			b.WriteString(first)
		} else {
			b.WriteString("\n" + strings.Repeat(" ", margin))
		}
		b.WriteString(line)
	}
	return b.String()
}

// Note returns a remark in a line of its own, below a frame.
func Note(text string, o Options) string {
	if text == "" {
		return ""
	}
	return "\n" + yellow.paint(cut(clean(text), o.Width), o.Color) + "\n"
}

// age is a duration for people: 45s, 12m, 3d4h. What lies in the future, because clocks
// differ, is 0s.
func age(d time.Duration) string { return duration.HumanDuration(max(d, 0)) }

// shortHash is as much of a store path as tells two apart: the first 8 characters of its
// digest.
func shortHash(storePath string) string {
	const prefix, length = "/nix/store/", 8
	digest, found := strings.CutPrefix(storePath, prefix)
	if !found || len(digest) < length {
		return clean(storePath)
	}
	return clean(digest[:length])
}
