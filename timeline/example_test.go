package timeline_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// archive keeps a log in memory.
type archive struct {
	entries []string
	tree    timeline.Tree
	state   timeline.State
	tiles   map[[2]int64][]byte
}

// add appends events and signs what the log is after them.
func (a *archive) add(signer note.Signer, events ...postern.Event) error {
	for _, e := range events {
		e.Index = int64(len(a.entries))
		text, err := timeline.Encode(e)
		if err != nil {
			return err
		}
		a.entries = append(a.entries, string(text))
		a.tree.Append(tlog.RecordHash(text))
	}
	for _, t := range a.tree.Finished() {
		a.tiles[[2]int64{int64(t.Level), t.N}] = t.Data
	}
	c := timeline.Checkpoint{Origin: signer.Name(), Size: a.tree.Size(), Root: a.tree.Root()}
	signed, err := c.Sign(signer)
	a.state = timeline.State{Size: c.Size, Edge: a.tree.Edge(), Checkpoint: signed}
	return err
}

func (a *archive) State(context.Context) (timeline.State, error) { return a.state, nil }

func (a *archive) Tile(_ context.Context, level int, n int64) ([]byte, error) {
	return a.tiles[[2]int64{int64(level), n}], nil
}

func (a *archive) Entries(_ context.Context, from int64, f func(timeline.Entry) error) error {
	for _, text := range a.entries[from:] {
		e, err := timeline.Decode([]byte(text))
		if err != nil {
			return err
		}
		if err := f(timeline.Entry{Text: text, Event: e}); err != nil {
			return err
		}
	}
	return nil
}

func (a *archive) Links(context.Context, func(int64, postern.Link) error) error { return nil }

// An entry and its proof can be verified with the log's public key.
func ExampleProof_Check() {
	ctx := context.Background()
	key, err := timeline.NewKey()
	if err != nil {
		fmt.Println(err)
		return
	}
	signer, err := note.NewSigner(key.Secret)
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier, err := note.NewVerifier(key.Verifier)
	if err != nil {
		fmt.Println(err)
		return
	}
	a := &archive{tiles: map[[2]int64][]byte{}}
	at := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	if err := a.add(signer,
		postern.Event{Time: at, Kind: postern.EventPersonAdded, Person: "alice"},
		postern.Event{Time: at, Kind: postern.EventPersonAdded, Person: "bob"},
	); err != nil {
		fmt.Println(err)
		return
	}

	proof, err := timeline.Prove(ctx, a, a.entries[1], 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	e, c, err := proof.Check(verifier)
	fmt.Println(e.Kind, e.Person, "is entry", e.Index, "of", c.Size, err)

	proof.Entry = strings.Replace(proof.Entry, "bob", "eve", 1)
	_, _, err = proof.Check(verifier)
	fmt.Println(err)

	a.entries[0] = strings.Replace(a.entries[0], "alice", "eve", 1)
	report, err := timeline.Verify(ctx, a, verifier)
	fmt.Println(len(report.Problems) > 0, err)
	// Output:
	// person.added bob is entry 1 of 2 <nil>
	// the proof does not prove its entry
	// true <nil>
}
