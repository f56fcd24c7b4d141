// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package view

import (
	"slices"
	"strings"
)

// style is how a text looks where colors are shown.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

func (s style) paint(text string, color bool) string {
	if !color || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// cell is a text in a table.
type cell struct {
	text  string
	style style
}

// column is a column of a table. When the terminal is too narrow, columns are left out
// in the order of give, the highest first; 0 stays.
type column struct {
	title string
	give  int
}

const (
	gap = "  "
	// least is what the last column may be cut down to before a column is left out.
	least = 16
)

// table is a table that fits into the width of a terminal.
type table struct {
	columns []column
	rows    [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// render returns the table, one line a row and the titles first.
func (t *table) render(o Options) string {
	return strings.Join(t.lines(o), "\n") + "\n"
}

// lines returns the title line and one line for each row.
func (t *table) lines(o Options) []string {
	shown, widths := t.fit(o)
	titles := make([]cell, len(t.columns))
	for i, c := range t.columns {
		titles[i] = cell{c.title, dim}
	}
	lines := []string{renderRow(titles, shown, widths, o)}
	for _, row := range t.rows {
		lines = append(lines, renderRow(row, shown, widths, o))
	}
	return lines
}

// fit chooses the columns that are shown and their widths.
func (t *table) fit(o Options) (shown, widths []int) {
	widths = make([]int, len(t.columns))
	for i, c := range t.columns {
		shown = append(shown, i)
		widths[i] = textWidth(c.title)
		for _, row := range t.rows {
			widths[i] = max(widths[i], textWidth(row[i].text))
		}
	}
	if o.Width <= 0 || o.Wide {
		return shown, widths
	}
	for {
		over := total(shown, widths) - o.Width
		last := shown[len(shown)-1]
		if over <= 0 {
			return shown, widths
		}
		if widths[last]-over >= max(least, textWidth(t.columns[last].title)) {
			widths[last] -= over
			return shown, widths
		}
		give := t.next(shown)
		if give < 0 {
			shrinkWidest(shown, widths, over)
			return shown, widths
		}
		shown = slices.Delete(shown, give, give+1)
	}
}

// shrinkWidest takes what is over from the widest column: one long name must not push
// everything else off the screen.
func shrinkWidest(shown, widths []int, over int) {
	widest := shown[0]
	for _, i := range shown {
		if widths[i] > widths[widest] {
			widest = i
		}
	}
	widths[widest] = max(widths[widest]-over, least)
}

// next is the place in shown of the column to leave out, or -1.
func (t *table) next(shown []int) int {
	place, most := -1, 0
	for at, i := range shown {
		if g := t.columns[i].give; g > most {
			place, most = at, g
		}
	}
	return place
}

func total(shown, widths []int) int {
	sum := len(gap) * (len(shown) - 1)
	for _, i := range shown {
		sum += widths[i]
	}
	return sum
}

func renderRow(row []cell, shown, widths []int, o Options) string {
	var b strings.Builder
	room := o.Width
	if o.Wide {
		room = 0
	}
	used := 0
	for at, i := range shown {
		text := cut(row[i].text, widths[i])
		if room > 0 {
			// What does not fit even without the columns that can go is cut off: a line
			// that wraps would break every line below it.
			left := room - used
			if left <= 0 {
				break
			}
			text = cut(text, left)
		}
		padding := ""
		if at < len(shown)-1 {
			padding = strings.Repeat(" ", max(widths[i]-textWidth(text), 0)) + gap
		}
		b.WriteString(row[i].style.paint(text, o.Color))
		b.WriteString(padding)
		used += textWidth(text) + len(padding)
	}
	return strings.TrimRight(b.String(), " ")
}
