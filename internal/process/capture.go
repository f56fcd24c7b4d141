// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package process

import (
	"io"
	"strings"
)

// Capture keeps the end of an output in memory and hands its beginning on. It never
// fails, so that a full disk does not end the program that writes.
type Capture struct {
	tail  []byte
	keep  int
	file  io.Writer
	room  int
	cause error
}

// NewCapture keeps the last keep bytes and writes the first most bytes to file, which
// may be nil.
func NewCapture(keep int, file io.Writer, most int) *Capture {
	return &Capture{keep: keep, file: file, room: most}
}

// Write takes all of p.
func (c *Capture) Write(p []byte) (int, error) {
	if c.file != nil && c.room > 0 && c.cause == nil {
		n, err := c.file.Write(p[:min(len(p), c.room)])
		c.room -= n
		c.cause = err
	}
	c.tail = append(c.tail, p[max(0, len(p)-c.keep):]...)
	c.tail = c.tail[max(0, len(c.tail)-c.keep):]
	return len(p), nil
}

// Err is why the file is not whole, if the disk was the cause.
func (c *Capture) Err() error { return c.cause }

// Tail is the end of the output as text.
func (c *Capture) Tail() string { return Text(c.tail) }

// LastLine is the last line that is not blank.
func (c *Capture) LastLine() string {
	text := c.Tail()
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

// Text makes output of a program fit for a message: valid UTF-8, no control characters
// but line ends and tabs, no blank lines around it.
func Text(p []byte) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(p), ""))
	return strings.TrimSpace(clean)
}
