package main

import (
	"bytes"
	"strings"
	"testing"
)

// printTable prints a table on a screen.
func printTable(t *testing.T, s screen, tab table) string {
	t.Helper()
	var b bytes.Buffer
	if err := tab.print(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func sample() table {
	return table{headed: true, rows: [][]string{
		{"SERIAL", "STATUS", "FOR"},
		{"5f3a5f3a5f3a5f3a5f3a5f3a", "revoked", "www.example.com example.com api.example.com"},
		{"1", "valid", ""},
	}}
}

func TestNothingIsCutInAPipe(t *testing.T) {
	want := "SERIAL                    STATUS   FOR\n" +
		"5f3a5f3a5f3a5f3a5f3a5f3a  revoked  www.example.com example.com api.example.com\n" +
		"1                         valid    -\n"
	if got := printTable(t, screen{}, sample()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestAListFitsTheTerminalAndKeepsWhatIdentifies(t *testing.T) {
	got := printTable(t, screen{width: 50}, sample())
	for line := range strings.Lines(got) {
		if n := columnsOf(strings.TrimSuffix(line, "\n")); n > 50 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if !strings.Contains(got, "5f3a5f3a5f3a5f3a5f3a5f3a  revoked  www.example.co…\n") {
		t.Errorf("got\n%s", got)
	}
}

func TestProseIsWrappedOnATerminal(t *testing.T) {
	tab := table{wrapped: true, rows: [][]string{{"12", "alice was added, by root, from somewhere"}}}
	if got, want := printTable(t, screen{width: 24}, tab), "12  alice was added, by\n    root, from somewhere\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestWhatATerminalObeysIsEscapedInAList(t *testing.T) {
	tab := table{rows: [][]string{{"vm\x1b[2J\u202ex", "虚拟", "end"}, {"a", "b", "c"}}}
	want := "vm\\x1b[2J\\u202ex  虚拟  end\na                 b     c\n"
	if got := printTable(t, screen{}, tab); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestColourIsForWholeWords(t *testing.T) {
	got := printTable(t, screen{width: 80, colour: true}, table{headed: true, rows: [][]string{{"A", "B"}, {"revoked", "is revoked"}}})
	if want := "\x1b[1mA\x1b[0m        \x1b[1mB\x1b[0m\n\x1b[31mrevoked\x1b[0m  is revoked\n"; got != want {
		t.Errorf("got %q want %q", got, want)
	}
}

func TestNumbersAgreeWithWhatTheyCount(t *testing.T) {
	for want, got := range map[string]string{
		"1 key": counted(1, "key"), "2 keys": counted(2, "key"), "0 entries": counted(0, "entry"), "1 entry": counted(1, "entry"),
	} {
		if got != want {
			t.Errorf("got %q want %q", got, want)
		}
	}
}
