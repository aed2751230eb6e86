package console

import (
	"net/url"
	"testing"

	"github.com/postern-project/postern"
)

// TestQueriesAreLinks reads what a query writes, and takes each part out.
func TestQueriesAreLinks(t *testing.T) {
	const rest = "&outcome=ok&person=alice&since=2026-01-02T03%3A04%3A05&strength=exact&until=2026-02-03T00%3A00%3A00" +
		"&words=a+b"
	for _, text := range []string{
		"address=192.0.2.0%2F24&before=9&from=2&host=hv1&kind=ssh&link=login%3Dhv1%2Faa&object=x" + rest,
		"address=192.0.2.0%2F24&before=9&from=2&host=hv1&kind=libvirt&machine=vm3" + rest,
	} {
		v, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParseQuery(v)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.Values().Encode(); got != text {
			t.Errorf("it became %s", got)
		}
		for _, c := range q.Conditions() {
			without := q.With(c.Name, "").Values()
			if without.Has(c.Name) || without.Has("before") || len(without) != len(v)-2 {
				t.Errorf("without %s it is %s", c.Name, without.Encode())
			}
		}
	}
}

// TestWordsAreFoundInEveryField searches for words of an entry.
func TestWordsAreFoundInEveryField(t *testing.T) {
	e := postern.Event{
		Kind: postern.EventLibvirtCall, Outcome: postern.Refused, Host: "hv1", Person: "alice", Address: "192.0.2.7",
		Object: "VM3", Reason: "no right", Details: map[string]string{"procedure": "domainDestroy"},
		Links: []postern.Link{{Kind: "yubikey", ID: "vvccccbdefgh"}},
	}
	for words, want := range map[string]bool{
		"vm3": true, "DOMAINDESTROY alice": true, "refused right": true, "yubikey vvcc": true, "hv1 192.0.2": true,
		"libvirt": true, "vm4": false, "alice bob": false, "": true,
	} {
		if got := (Query{Words: words}).hasWords(e); got != want {
			t.Errorf("%q is found: %v", words, got)
		}
	}
}
