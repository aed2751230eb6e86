package timeline

import (
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// TestKeysFollowEachOther holds what a log's keys vouch for, before the second one is made,
// while both sign, and when the first was retired.
func TestKeysFollowEachOther(t *testing.T) {
	first, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(first.Verifier, "+")
	next, err := NextKey(name)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(keys ...Key) string {
		t.Helper()
		var signers []note.Signer
		for _, k := range keys {
			s, err := note.NewSigner(k.Secret)
			if err != nil {
				t.Fatal(err)
			}
			signers = append(signers, s)
		}
		c, err := Checkpoint{Origin: name, Size: 3}.Sign(signers...)
		if err != nil || !SignedBy(c, signers) || SignedBy(c, signers[1:]) {
			t.Fatalf("%v: %s", err, c)
		}
		return c
	}
	old, both, late := signed(first), signed(first, next), signed(next)
	for _, c := range []struct {
		keys           string
		opens, vouches [3]bool // for old, both, late
	}{
		{first.Verifier, [3]bool{true, true, false}, [3]bool{true, true, false}},
		{next.Verifier, [3]bool{false, true, true}, [3]bool{false, true, true}},
		{
			FormatKeys(nil, []string{first.Verifier, next.Verifier}),
			[3]bool{true, true, true},
			[3]bool{true, true, true},
		},
		{
			FormatKeys([]string{first.Verifier}, []string{next.Verifier}),
			[3]bool{true, true, true},
			[3]bool{false, true, true},
		},
	} {
		k, err := ParseKeys(c.keys)
		if err != nil {
			t.Fatal(err)
		}
		for i, checkpoint := range []string{old, both, late} {
			if _, err := OpenCheckpoint(checkpoint, k); (err == nil) != c.opens[i] {
				t.Errorf("by\n%s\nthe checkpoint %d opens: %v", c.keys, i, err)
			}
			if _, err := OpenLatest(checkpoint, k); (err == nil) != c.vouches[i] {
				t.Errorf("by\n%s\nthe checkpoint %d is the latest: %v", c.keys, i, err)
			}
		}
	}
	other, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "no key", "retired " + first.Verifier, first.Verifier + "\n" + other.Verifier,
		first.Verifier + "\n\n" + next.Verifier,
	} {
		if _, err := ParseKeys(bad); err == nil {
			t.Errorf("%q are keys of a log", bad)
		}
	}
}
