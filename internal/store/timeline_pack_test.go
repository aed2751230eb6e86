package store

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// TestEntriesAreMadeAgain keeps entries of every shape in columns, and makes them again from
// these alone.
func TestEntriesAreMadeAgain(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 120_000_000, time.UTC)
	session := postern.Link{Kind: postern.LinkSession, ID: "hv1/session/1"}
	one, two := []postern.Link{session}, []postern.Link{session, {Kind: "x509", ID: "x509"}}
	details := map[string]string{"a": `","`, "b": "\x01"}
	for name, c := range map[string]struct {
		e     postern.Event
		whole bool // is kept as it is
	}{
		"nothing":  {postern.Event{Kind: "test", Outcome: postern.OK}, false},
		"sign-in":  {postern.Event{Kind: "gate.passed", Person: "dan", Address: "192.0.2.1", Object: "/a"}, false},
		"host":     {postern.Event{Kind: "ssh.auth", Host: "hv1", Person: "dan", Links: one}, false},
		"no host":  {postern.Event{Kind: "a", Reason: `,"host":"hv1"`, Links: two}, false},
		"alone":    {postern.Event{Host: "session"}, false},
		"all else": {postern.Event{Count: 7, Took: time.Second, Details: details}, false},
		"reason":   {postern.Event{Object: "x", Reason: `"},{"kind":"`}, false},
		"quoted":   {postern.Event{Person: `"`}, true},
		"escaped":  {postern.Event{Object: `\`}, true},
		"words":    {postern.Event{Object: "Zürich"}, true},
		"control":  {postern.Event{Address: "\x01"}, true},
		"name":     {postern.Event{Host: `hv"1`, Person: "dan"}, true},
	} {
		c.e.Index, c.e.Time = 1<<40, at
		text, err := timeline.Encode(c.e)
		if err != nil {
			t.Fatal(err)
		}
		k := keep(c.e, string(text))
		if whole := k.line == string(text); whole != c.whole {
			t.Errorf("%s: %q is kept whole: %v", name, text, whole)
		}
		if !c.whole && len(k.line) > len(text)/2 {
			t.Errorf("%s: %q is kept as %q", name, text, k.line)
		}
		if got := k.text(); got != string(text) {
			t.Errorf("%s: %q became %q", name, text, got)
		}
		if e := k.entry(); e.Person != c.e.Person || !e.Time.Equal(at) || e.Text != string(text) {
			t.Errorf("%s: the entry is %+v", name, e)
		}
	}
}

// FuzzEntryIsMadeAgain keeps what an event may say, and makes an entry of any columns.
func FuzzEntryIsMadeAgain(f *testing.F) {
	f.Add("kind", "host", "person", "object", "reason", "line")
	f.Add("\x02", `a"b`, `","x":"`, "\\", "\x01\x7f\u2028", `,"host":"`)
	f.Fuzz(func(t *testing.T, kind, host, person, object, reason, line string) {
		e := timeline.Clean(postern.Event{
			Kind: kind, Host: host, Person: person, Object: object, Reason: reason, Time: time.Unix(1, 5000),
			Links: []postern.Link{{Kind: kind, ID: host}}, Details: map[string]string{person: line},
		})
		text, err := timeline.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		k := keep(e, string(text))
		if got := k.text(); got != string(text) {
			t.Errorf("%q became %q", text, got)
		}
		k.line = line
		if got := k.text(); strings.HasPrefix(line, "{") && got != line {
			t.Errorf("%q became %q", line, got)
		}
	})
}
