package console

import (
	"testing"

	"github.com/postern-project/postern"
)

// TestSentencesLeadToWhatTheyName marks names only where they stand as words of their own.
func TestSentencesLeadToWhatTheyName(t *testing.T) {
	mentions := []Part{
		{Text: "192.0.2.7", Of: Address, ID: "192.0.2.7"},
		{Text: "2001:db8::1", Of: Address, ID: "2001:db8::1"},
		{Text: "alice", Of: Person, ID: "alice"},
		{Text: "hv1", Of: Host, ID: "hv1"},
	}
	for sentence, want := range map[string]string{
		"alice, from 192.0.2.7, signed in to /alice.":     "[alice], from [192.0.2.7], signed in to /alice.",
		"malice signed in.":                               "malice signed in.",
		"alice.smith and alice-2 and alice.":              "alice.smith and alice-2 and [alice].",
		"was refused hv1.example.com (told by hv1).":      "was refused hv1.example.com (told by [hv1]).",
		"from 192.0.2.77 and 2001:db8::1:2, 2001:db8::1.": "from 192.0.2.77 and 2001:db8::1:2, [2001:db8::1].",
		"":               "",
		"Ünal alice\xff": "Ünal [alice]\xff",
	} {
		got := ""
		for _, p := range split(sentence, mentions) {
			if p.Of != "" {
				got += "[" + p.Text + "]"
			} else {
				got += p.Text
			}
		}
		if got != want {
			t.Errorf("%q gives %q, want %q", sentence, got, want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("alice, from 192.0.2.7, ran x on vm3.", "alice", "vm3")
	f.Add("\xff\xfe alice", "\xff", "a")
	f.Fuzz(func(t *testing.T, sentence, a, b string) {
		e := postern.Event{Person: a, Host: b, Kind: postern.EventLibvirtCall, Object: b}
		l := Line{Sentence: split(sentence, mentions(e, nil, a))}
		if l.Text() != sentence {
			t.Errorf("%q became %q", sentence, l.Text())
		}
	})
}
