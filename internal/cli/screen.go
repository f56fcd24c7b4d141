// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// screen shows a text that changes.
type screen struct {
	out io.Writer
	// size returns the width and height of the terminal. It is nil if there is none.
	size func() (width, height int)
	// drawn is the last text, and lines the number of its lines on the screen.
	drawn string
	lines int
}

// newScreen finds out whether out is a terminal that can be drawn on.
func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("TERM") == "dumb" {
		return s
	}
	s.size = func() (int, int) {
		width, height, err := term.GetSize(int(file.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			return 80, 24
		}
		return width, height
	}
	return s
}

func (s *screen) terminal() bool { return s.size != nil }

// width is that of the terminal; 0 is no terminal.
func (s *screen) width() int {
	if s.size == nil {
		return 0
	}
	width, _ := s.size()
	return width
}

// draw puts a text where the one before was. It is for terminals alone. What is higher
// than the terminal is cut off: a frame that scrolled away could not be replaced.
func (s *screen) draw(text string) error {
	_, height := s.size()
	text = fitHeight(text, height-1)
	if text == s.drawn {
		return nil
	}
	var b strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.lines)
	}
	// To the first column, and clear everything below.
	b.WriteString("\r\x1b[J" + text)
	s.drawn, s.lines = text, strings.Count(text, "\n")
	return write(s.out, b.String())
}

func fitHeight(text string, height int) string {
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	if height < 2 || len(lines) <= height {
		return strings.TrimSuffix(text, "\n") + "\n"
	}
	shown := lines[:height-1]
	return strings.Join(shown, "") + fmt.Sprintf("… %d more lines\n", len(lines)-len(shown))
}
