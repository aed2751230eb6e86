package timeline

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// key is a log's key and what signs and verifies with it.
func key(t testing.TB) (note.Signer, note.Verifier) {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(k.Secret)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(k.Verifier)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func TestCheckpoints(t *testing.T) {
	s, v := key(t)
	_, other := key(t)
	c := Checkpoint{Origin: s.Name(), Size: 12, Root: tlog.RecordHash(nil)}
	signed, err := c.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCheckpoint(signed, v); err != nil || got != c {
		t.Errorf("opened %+v, %v", got, err)
	}
	if _, err := OpenCheckpoint(signed, other); err == nil {
		t.Error("another log's key opens it")
	}
	for i := range signed {
		changed := []byte(signed)
		changed[i] ^= 1
		if got, err := OpenCheckpoint(string(changed), v); err == nil && got != c {
			t.Errorf("byte %d changed, and it says %+v", i, got)
		}
	}
	for _, bad := range []Checkpoint{{Origin: "elsewhere", Size: 12}, {Origin: s.Name(), Size: -1}} {
		if signed, err := bad.Sign(s); err == nil {
			if _, err := OpenCheckpoint(signed, v); err == nil {
				t.Errorf("%+v opens", bad)
			}
		}
	}
}

func FuzzOpenCheckpoint(f *testing.F) {
	s, v := key(f)
	signed, err := Checkpoint{Origin: s.Name(), Size: 3}.Sign(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(strings.Replace(signed, "3", "-3", 1))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := OpenCheckpoint(text, v); err == nil && (c.Size != 3 || c.Origin != s.Name()) {
			t.Errorf("forged: %+v", c)
		}
	})
}

func FuzzProof(f *testing.F) {
	s, v := key(f)
	var tree Tree
	entries := [][]byte{[]byte(`{"index":0}`), []byte(`{"index":1}`)}
	for _, entry := range entries {
		tree.Append(tlog.RecordHash(entry))
	}
	signed, err := Checkpoint{Origin: s.Name(), Size: 2, Root: tree.Root()}.Sign(s)
	if err != nil {
		f.Fatal(err)
	}
	good := Proof{string(entries[0]), 0, []tlog.Hash{tlog.RecordHash(entries[1])}, signed}
	if _, _, err := good.Check(v); err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(bytes.Replace(text, []byte(`"index":0`), []byte(`"index":1`), 1))
	f.Add([]byte(`{"hashes":["AAAA"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParseProof(text)
		if err != nil {
			return
		}
		if _, _, err := p.Check(v); err == nil && !slices.ContainsFunc(entries, func(l []byte) bool {
			return string(l) == p.Entry
		}) {
			t.Errorf("proves %q", p.Entry)
		}
	})
}
