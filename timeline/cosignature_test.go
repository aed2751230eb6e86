package timeline_test

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
)

// cosigner returns a witness's cosigner, whose clock says at.
func cosigner(t testing.TB, name string, at time.Time) *timeline.Cosigner {
	t.Helper()
	key, err := timeline.NewWitnessKey(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := timeline.NewCosigner(key.Secret, func() time.Time { return at })
	if err != nil || c.String() != key.Verifier {
		t.Fatal(c, err)
	}
	return c
}

// signedCheckpoint returns a checkpoint that a new log signed, its text and the log's key.
func signedCheckpoint(t testing.TB, size int64) (signed, text, key string) {
	t.Helper()
	k, err := timeline.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(k.Secret)
	if err != nil {
		t.Fatal(err)
	}
	signed, err = timeline.Checkpoint{Origin: signer.Name(), Size: size}.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ = strings.Cut(signed, "\n\n")
	return signed, text + "\n", k.Verifier
}

func TestACosignatureIsOfOneWitnessOneTextAndOneTime(t *testing.T) {
	at := time.Unix(1700000000, 0).UTC()
	w, other := cosigner(t, "witness.example/w1", at), cosigner(t, "witness.example/w2", at)
	signed, text, _ := signedCheckpoint(t, 7)
	line, err := w.Cosign(text)
	if err != nil {
		t.Fatal(err)
	}
	both, err := timeline.AddCosignatures(signed, line+"— someone.else AAAA\n", &w.Witness)
	if err != nil || both != signed+line {
		t.Fatalf("%q, %v", both, err)
	}
	times, err := timeline.Cosignatures(both, &w.Witness, &other.Witness)
	if err != nil || len(times) != 1 || !times["witness.example/w1"].Equal(at) {
		t.Errorf("%v, %v", times, err)
	}
	if _, err := timeline.AddCosignatures(signed, line, &other.Witness); err == nil {
		t.Error("the cosignature of a witness that was not asked is taken")
	}
	another, _, _ := signedCheckpoint(t, 7)
	if _, err := timeline.AddCosignatures(another, line, &w.Witness); err == nil {
		t.Error("the cosignature of another checkpoint is taken")
	}
	if _, err := timeline.Cosignatures(another+line, &w.Witness); err == nil {
		t.Error("a checkpoint with a cosignature that is not valid is taken")
	}
	if _, err := w.Cosign("not a checkpoint\n"); err == nil {
		t.Error("a text that is no checkpoint is cosigned")
	}
}

func TestTheKeyOfAWitnessHasItsType(t *testing.T) {
	_, _, log := signedCheckpoint(t, 1)
	for _, key := range []string{"", "a+b", log, "w+00000000+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		if _, err := timeline.NewWitness(key); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestAPolicyAsksForAQuorum(t *testing.T) {
	at := time.Now()
	a, b, c := cosigner(t, "a.example", at), cosigner(t, "b.example", at), cosigner(t, "c.example", at)
	signed, text, log := signedCheckpoint(t, 3)
	policy := "# who is trusted\nlog " + log + " https://log.example/\nwitness A " + a.String() +
		" https://a.example\nwitness B " + b.String() + "\nwitness C " + c.String() +
		"\n\tgroup BC 1 B C\ngroup all all A BC\nquorum all\n"
	p, err := timeline.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Logs) != 1 || len(p.Witnesses) != 3 || p.Witnesses[0].URL != "https://a.example" {
		t.Errorf("%+v", p)
	}
	line := map[string]string{}
	for name, w := range map[string]*timeline.Cosigner{"A": a, "B": b, "C": c} {
		if line[name], err = w.Cosign(text); err != nil {
			t.Fatal(err)
		}
	}
	for by, want := range map[string]bool{"": false, "A": false, "BC": false, "AC": true, "AB": true, "ABC": true} {
		cosigned := signed
		for _, name := range strings.Split(by, "") {
			cosigned += line[name]
		}
		got, enough, err := p.Cosigned(cosigned)
		if err != nil || enough != want || len(got) != len(by) {
			t.Errorf("%q: %v %v %v", by, got, enough, err)
		}
	}
}

func TestAPolicyThatSaysNothingClearIsRefused(t *testing.T) {
	w := cosigner(t, "w.example", time.Now()).String()
	_, _, log := signedCheckpoint(t, 3)
	for _, bad := range []string{
		"", "quorum A\n", "quorum none\nquorum none\n", "witness A\nquorum none\n", "log x\nquorum none\n",
		"witness A " + w + "\nwitness B " + w + "\nquorum A\n", "witness none " + w + "\nquorum none\n",
		"log " + log + "\nlog " + log + "\nquorum none\n", "witness A " + log + "\nquorum A\n",
		"witness A " + w + "\ngroup G 2 A\nquorum G\n", "witness A " + w + "\ngroup G any A A\nquorum G\n",
		"witness A " + w + "\ngroup G 01 A\nquorum G\n", "witness A " + w + "\ngroup A any A\nquorum A\n", "hello\n",
	} {
		if p, err := timeline.ParsePolicy([]byte(bad)); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %+v, %v", bad, p, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("witness A " + cosigner(f, "w.example", time.Now()).String() + "\ngroup G any A\nquorum G\n"))
	f.Add([]byte("quorum none\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := timeline.ParsePolicy(text)
		if err != nil {
			return
		}
		signed, _, _ := signedCheckpoint(t, 1)
		if by, enough, err := p.Cosigned(signed); err != nil || len(by) > 0 ||
			enough && !strings.Contains(string(text), "none") {
			t.Errorf("a checkpoint that no witness cosigned: %v %v %v", by, enough, err)
		}
	})
}

func FuzzCosignatures(f *testing.F) {
	at := time.Unix(1700000000, 0)
	w := cosigner(f, "w.example", at)
	signed, text, _ := signedCheckpoint(f, 3)
	line, err := w.Cosign(text)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed, line)
	f.Fuzz(func(t *testing.T, signed, lines string) {
		kept, err := timeline.AddCosignatures(signed, lines, &w.Witness)
		if err != nil {
			return
		}
		if times, err := timeline.Cosignatures(kept, &w.Witness); err != nil || len(times) != 1 {
			t.Errorf("%q: %v, %v", kept, times, err)
		}
	})
}

func FuzzSplitBundle(f *testing.F) {
	data, err := timeline.AppendEntry(nil, "entry")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := timeline.SplitBundle(data)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			if again, err = timeline.AppendEntry(again, e); err != nil {
				t.Fatal(err)
			}
		}
		if string(again) != string(data) {
			t.Errorf("%x is not %x", again, data)
		}
	})
}

func FuzzTilePath(f *testing.F) {
	for _, path := range []string{"tile/0/000", "tile/1/x001/234.p/7", "tile/entries/x001/x234/067", "tile/data/000"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if tile, err := timeline.ParseTilePath(path); err == nil && timeline.TilePath(tile) != path {
			t.Errorf("%q is %+v, %q", path, tile, timeline.TilePath(tile))
		}
	})
}
