package timeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// gone is a log all of whose entries are in an archive that is not here.
type gone struct {
	state timeline.State
	tiles map[[2]int64][]byte
}

func (g gone) State(context.Context) (timeline.State, error) { return g.state, nil }

func (g gone) Entries(context.Context, int64, func(timeline.Entry) error) error { return nil }

func (g gone) Links(context.Context, func(int64, postern.Link) error) error { return nil }

func (g gone) Tile(_ context.Context, level int, n int64) ([]byte, error) {
	return g.tiles[[2]int64{int64(level), n}], nil
}

// goneWith returns such a log of so many entries.
func goneWith(t *testing.T, s note.Signer, text string, size int64) gone {
	t.Helper()
	tree, g := new(timeline.Tree), gone{tiles: map[[2]int64][]byte{}}
	for i := range size {
		tree.Append(tlog.RecordHash(fmt.Append(nil, text, i)))
	}
	for _, tile := range tree.Finished() {
		g.tiles[[2]int64{int64(tile.Level), tile.N}] = tile.Data
	}
	signed, err := timeline.Checkpoint{Origin: s.Name(), Size: size, Root: tree.Root()}.Sign(s)
	must(t, err)
	g.state = timeline.State{
		Size: size, Edge: tree.Edge(), Checkpoint: signed, Missing: true,
		Archived: timeline.Archived{Size: size, Removed: size, Checkpoint: signed},
	}
	return g
}

// TestALogWrittenAnewIsFoundWithoutItsArchive writes a log anew, signs it with its own key, says that the
// entries are in an archive, and leaves those hashes of the first log that an earlier checkpoint is over.
func TestALogWrittenAnewIsFoundWithoutItsArchive(t *testing.T) {
	key, err := timeline.NewKey()
	must(t, err)
	s, err := note.NewSigner(key.Secret)
	must(t, err)
	v, err := note.NewVerifier(key.Verifier)
	must(t, err)
	first, anew := goneWith(t, s, "first", 4096), goneWith(t, s, "anew", 4096)
	earlier := goneWith(t, s, "first", 100).state.Checkpoint
	for _, tampered := range []bool{false, true} {
		if tampered {
			for at := range anew.tiles {
				anew.tiles[at] = first.tiles[at]
			}
		}
		r, err := timeline.Verify(t.Context(), anew, v, earlier)
		if err != nil || len(r.Problems) == 0 {
			t.Errorf("a log that was written anew, tampered %t: %+v, %v", tampered, r, err)
		}
	}
	r, err := timeline.Verify(t.Context(), first, v, earlier, goneWith(t, s, "", 0).state.Checkpoint)
	if err != nil || len(r.Problems) > 0 {
		t.Errorf("the first log: %+v, %v", r, err)
	}
}

// keysOf returns two keys of one log, and a key of another that has its name.
func keysOf(t *testing.T) (first, next, forged timeline.Key) {
	t.Helper()
	first, err := timeline.NewKey()
	must(t, err)
	name, _, _ := strings.Cut(first.Verifier, "+")
	next, err = timeline.NextKey(name)
	must(t, err)
	forged, err = timeline.NextKey(name)
	must(t, err)
	return first, next, forged
}

// proofOf returns the proof of a log's only entry, as the keys sign it.
func proofOf(t *testing.T, keys ...timeline.Key) []byte {
	t.Helper()
	var signers []note.Signer
	for _, k := range keys {
		s, err := note.NewSigner(k.Secret)
		must(t, err)
		signers = append(signers, s)
	}
	line, err := timeline.Encode(postern.Event{Kind: postern.EventSignedIn, Time: time.Unix(1700000000, 0)})
	must(t, err)
	c := timeline.Checkpoint{Origin: signers[0].Name(), Size: 1, Root: tlog.RecordHash(line)}
	signed, err := c.Sign(signers...)
	must(t, err)
	proof, err := json.Marshal(timeline.Proof{Entry: string(line), Checkpoint: signed})
	must(t, err)
	return proof
}

// TestAPolicyNamesEachKeyOfALog follows a log's key by another, and names both in a policy.
func TestAPolicyNamesEachKeyOfALog(t *testing.T) {
	first, next, forged := keysOf(t)
	policy := []byte("log " + first.Verifier + "\nlog " + next.Verifier + "\nquorum none\n")
	for name, proof := range map[string][]byte{
		"the first key": proofOf(t, first), "both": proofOf(t, first, next), "the next key": proofOf(t, next),
	} {
		if _, err := timeline.CheckProofByPolicy(proof, policy); err != nil {
			t.Errorf("signed by %s: %v", name, err)
		}
	}
	if _, err := timeline.CheckProofByPolicy(proofOf(t, forged), policy); postern.CodeOf(err) != postern.Denied {
		t.Errorf("signed by a key that the policy does not name: %v", err)
	}
}

// TestAProofByARetiredKeySaysSo checks what a retired key signed, and may sign for who stole it.
func TestAProofByARetiredKeySaysSo(t *testing.T) {
	first, next, _ := keysOf(t)
	keys := timeline.FormatKeys([]string{first.Verifier}, []string{next.Verifier})
	for _, c := range []struct {
		proof   []byte
		retired bool
	}{{proofOf(t, first), true}, {proofOf(t, first, next), false}, {proofOf(t, next), false}} {
		checked, err := timeline.CheckProof(c.proof, keys)
		if err != nil || checked.Retired != c.retired || strings.Contains(checked.String(), "retired") != c.retired {
			t.Errorf("%s: %v, %v", c.proof, checked, err)
		}
	}
	_, err := timeline.CheckProof(proofOf(t, next), first.Verifier)
	if postern.CodeOf(err) != postern.Denied || !strings.Contains(postern.HintOf(err), "newest public keys") {
		t.Errorf("signed by a later key: %v, %s", err, postern.HintOf(err))
	}
}

// TestAWitnessHasOneLine has a witness answer with so many lines that there is no room for others.
func TestAWitnessHasOneLine(t *testing.T) {
	secret, err := timeline.NewWitnessKey("w.example")
	must(t, err)
	at := time.Unix(1700000000, 0)
	w, err := timeline.NewCosigner(secret.Secret, func() time.Time {
		at = at.Add(time.Second)
		return at
	})
	must(t, err)
	signed, text, _ := signedCheckpoint(t, 3)
	lines := ""
	for range 60 {
		line, err := w.Cosign(text)
		must(t, err)
		lines += line
	}
	kept, err := timeline.AddCosignatures(signed, lines, &w.Witness)
	if err != nil || strings.Count(kept, "\n— w.example ") != 1 {
		t.Errorf("%d lines are kept: %v", strings.Count(kept, "\n— w.example "), err)
	}
}
