package live

import (
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
)

// TestAPageOnATerminal: it shows what was read last, and nothing new while it is paused.
func TestAPageOnATerminal(t *testing.T) {
	reads, shown, keys := 0, 0, ""
	m := &model{Page: Page{
		Interval: time.Hour, Count: 3,
		Refresh: func(width int) func() {
			reads++
			n := reads
			return func() { shown = n }
		},
		Draw: func(width int, paused bool) string {
			return fmt.Sprintf("%d of %d columns, paused: %v\nsecond\nthird\n", shown, width, paused)
		},
		Key: func(key string) { keys += key },
	}}
	step := func(msg tea.Msg) tea.Cmd { _, cmd := m.Update(msg); return cmd }
	press := func(k string) tea.Cmd { return step(tea.KeyPressMsg{Text: k, Code: rune(k[0])}) }
	first := func() string { line, _, _ := strings.Cut(m.View().Content, "\n"); return line }
	step(tea.WindowSizeMsg{Width: 40, Height: 2})
	step(m.Init()())
	if got := first(); got != "1 of 40 columns, paused: false" {
		t.Errorf("at first: %q", got)
	}
	if n := strings.Count(m.View().Content, "\n"); n != 1 {
		t.Errorf("%d lines on two", n+1)
	}
	step(step(tick{})())
	press(" ")
	if cmd := step(tick{}); cmd == nil || reads != 2 {
		t.Errorf("paused, but read %d times", reads)
	}
	if got := first(); got != "2 of 40 columns, paused: true" {
		t.Errorf("paused: %q", got)
	}
	press(" ")
	press("o")
	if keys != "o" {
		t.Errorf("the page is given the keys %q", keys)
	}
	if quit := step(step(tick{})()); quit == nil || quit() != tea.Quit() {
		t.Error("it goes on after the last refresh")
	}
	if quit := press("q"); quit == nil || quit() != tea.Quit() {
		t.Error("q does not end it")
	}
}
