package terminal

import (
	"bytes"
	"strings"
	"testing"
)

// printTable prints a table on a screen.
func printTable(t *testing.T, s Screen, tab Table) string {
	t.Helper()
	var b bytes.Buffer
	if err := tab.Print(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func sample() Table {
	return Table{Headed: true, Rows: [][]string{
		{"SERIAL", "STATUS", "FOR"},
		{"5f3a5f3a5f3a5f3a5f3a5f3a", "revoked", "www.example.com example.com api.example.com"},
		{"1", "valid", ""},
	}}
}

func TestNothingIsCutInAPipe(t *testing.T) {
	want := "SERIAL                    STATUS   FOR\n" +
		"5f3a5f3a5f3a5f3a5f3a5f3a  revoked  www.example.com example.com api.example.com\n" +
		"1                         valid    -\n"
	if got := printTable(t, Screen{}, sample()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestAListFitsTheTerminalAndKeepsWhatIdentifies(t *testing.T) {
	got := printTable(t, Screen{Width: 50}, sample())
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
	tab := Table{Wrapped: true, Rows: [][]string{{"12", "alice was added, by root, from somewhere"}}}
	if got, want := printTable(t, Screen{Width: 24}, tab),
		"12  alice was added, by\n    root, from somewhere\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestWhatATerminalObeysIsEscapedInAList(t *testing.T) {
	tab := Table{Rows: [][]string{{"vm\x1b[2J\u202ex", "虚拟", "end"}, {"a", "b", "c"}}}
	want := "vm\\x1b[2J\\u202ex  虚拟  end\na                 b     c\n"
	if got := printTable(t, Screen{}, tab); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestColourIsForWholeWords(t *testing.T) {
	got := printTable(t, Screen{Width: 80, Colour: true},
		Table{Headed: true, Rows: [][]string{{"A", "B"}, {"revoked", "is revoked"}}})
	if want := "\x1b[1mA\x1b[0m        \x1b[1mB\x1b[0m\n\x1b[31mrevoked\x1b[0m  is revoked\n"; got != want {
		t.Errorf("got %q want %q", got, want)
	}
}

func TestNumbersAgreeWithWhatTheyCount(t *testing.T) {
	for want, got := range map[string]string{
		"1 key": Counted(1, "key"), "2 keys": Counted(2, "key"), "0 entries": Counted(0, "entry"),
		"2 processes": Counted(2, "process"), "3 dispatches": Counted(3, "dispatch"), "1 entry": Counted(1, "entry"),
	} {
		if got != want {
			t.Errorf("got %q want %q", got, want)
		}
	}
}
