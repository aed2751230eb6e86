package timeline_test

import (
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
)

// TestVerifyingGoesOnFromAnySize verifies a log from each of its earlier checkpoints on, at
// several sizes: within a tile, at its end, and with more than one level of tiles.
func TestVerifyingGoesOnFromAnySize(t *testing.T) {
	key, err := timeline.NewKey()
	must(t, err)
	signer, err := note.NewSigner(key.Secret)
	must(t, err)
	verifier, err := note.NewVerifier(key.Verifier)
	must(t, err)
	log := archive{tiles: map[[2]int64][]byte{}}
	var checkpoints []string
	for n := 1; n <= 4200; n++ {
		must(t, log.add(signer, postern.Event{Time: time.Unix(int64(n), 0).UTC(), Kind: "test", Outcome: postern.OK}))
		checkpoints = append(checkpoints, log.state.Checkpoint)
		switch n {
		case 1, 2, 63, 64, 65, 127, 128, 200, 4096, 4200:
		default:
			continue
		}
		for size, earlier := range checkpoints {
			if size++; size < n-300 && size%97 != 0 {
				continue
			}
			r, err := timeline.VerifySince(t.Context(), &log, verifier, earlier)
			if err != nil || len(r.Problems) > 0 || r.From != int64(size) || r.Size != int64(n) {
				t.Fatalf("%d entries from %d on: %+v %v", n, size, r, err)
			}
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
