package timeline

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/postern-project/postern"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Archive is a whole log as it is kept, seen at one moment. Verify reads it from
// one goroutine.
type Archive interface {
	// State returns the size, edge and checkpoint of the log.
	State(ctx context.Context) (State, error)
	// Entries calls f with every entry from an index on, in the order of their index. It
	// returns the error of f at once.
	Entries(ctx context.Context, from int64, f func(Entry) error) error
	// Links calls f with every kept link, in any order.
	Links(ctx context.Context, f func(index int64, l postern.Link) error) error
	// Tile returns the data of a finished tile, or nil if it is not kept.
	Tile(ctx context.Context, level int, n int64) ([]byte, error)
}

// State is what is kept of a log as a whole: its size, its tree's edge, and
// the signed checkpoint over both.
type State struct {
	Size       int64
	Edge       []byte
	Checkpoint string
	// Archived says which entries are in files. They have neither columns nor links.
	Archived Archived
	// Missing says that these files are not here.
	Missing bool
}

// Entry is an entry as it is kept, with the parts of it that are kept in columns
// of their own to be searched.
type Entry struct {
	Text string
	postern.Event
}

// Problem is one thing that is wrong with a log.
type Problem struct {
	Index int64  `json:"index"` // of the entry; -1 for a problem of more than one
	What  string `json:"what"`
}

func (p Problem) String() string {
	if p.Index < 0 {
		return p.What
	}
	return fmt.Sprintf("entry %d: %s", p.Index, p.What)
}

// Report is what Verify found.
type Report struct {
	From       int64     `json:"from,omitempty"`     // those before were verified earlier, or are missing
	Archived   int64     `json:"archived,omitempty"` // those before are in an archive
	Missing    bool      `json:"missing,omitempty"`  // which is not here
	Size       int64     `json:"size"`               // entries that are there, or in the archive
	Checkpoint string    `json:"checkpoint"`         // the log's own
	Problems   []Problem `json:"problems"`           // none if the log is sound; at most maxProblems
	// Witnesses say up to where they cosigned the log, which begins with what they saw unless
	// there are problems. They are of those who keep the log: Verify knows none.
	Witnesses []Witnessed `json:"witnesses,omitempty"`
}

const maxProblems = 100

// Verify checks a whole log: that every entry is the one that was hashed and is
// in its place, that its columns and links say the same, and that all entries
// together are what the checkpoint signs. With earlier checkpoints it also checks
// that the log still begins with what they signed, which finds a log that was cut,
// or written anew and signed with its own key.
//
// The error is that of reading; what is wrong with the log is in the report.
// Of entries in an archive that is not here it checks that the tree over them is the one
// that was signed when they were moved there.
func Verify(ctx context.Context, a Archive, v note.Verifier, earlier ...string) (Report, error) {
	w := &verifier{archive: a, earlier: map[int64][]Checkpoint{}}
	for _, signed := range earlier {
		c, err := OpenCheckpoint(signed, v)
		if err != nil {
			return Report{}, postern.Errorf(postern.Invalid, "the earlier %w", err).
				WithHint("it must be a checkpoint of this log, saved when it was verified earlier")
		}
		w.earlier[c.Size] = append(w.earlier[c.Size], c)
	}
	if err := w.skipMissing(ctx, v); err != nil {
		return w.report, err
	}
	return verify(ctx, w, v)
}

// skipMissing begins behind the entries that are in an archive that is not here.
func (w *verifier) skipMissing(ctx context.Context, v note.Verifier) error {
	s, err := w.archive.State(ctx)
	if err != nil || !s.Missing {
		return err
	}
	c, err := OpenCheckpoint(s.Archived.Checkpoint, v)
	if err != nil {
		return fmt.Errorf("of the archive, the %w", err)
	}
	tree, err := TreeAt(ctx, w.archive, c.Size)
	if err != nil {
		return err
	}
	if tree == nil || tree.Root() != c.Root || c.Size != s.Archived.Size {
		w.problem(-1, "the hashes over the archived entries are not those that were signed")
	}
	if tree != nil {
		w.tree, w.report.From = *tree, c.Size
	}
	for size, list := range w.earlier {
		if size >= c.Size {
			continue
		}
		if err := w.compareMissing(ctx, c, size, list); err != nil {
			return err
		}
	}
	return nil
}

// compareMissing compares earlier checkpoints, of a size that the log had within the entries that are
// missing, with the one of all of these, c. Each hash that is kept over them may have been
// changed, so that nothing but a proof which leads to c's root counts.
func (w *verifier) compareMissing(ctx context.Context, c Checkpoint, size int64, list []Checkpoint) error {
	proof, err := ProveGrowth(ctx, w.archive, size, c.Size)
	if err != nil {
		return err
	}
	for _, e := range list {
		if size == 0 && e.Root == new(Tree).Root() || tlog.CheckTree(proof, c.Size, c.Root, size, e.Root) == nil {
			continue
		}
		w.problem(-1, "its first %d entries are not those that the earlier checkpoint signed", size)
	}
	delete(w.earlier, size)
	return nil
}

// verify checks the entries behind those of the verifier's tree.
func verify(ctx context.Context, w *verifier, v note.Verifier) (Report, error) {
	rand.Read(w.key[:]) // never fails
	s, err := w.archive.State(ctx)
	if err != nil {
		return w.report, err
	}
	w.report.Archived, w.report.Missing = s.Archived.Size, s.Missing
	if err := w.entries(ctx); err != nil {
		return w.report, err
	}
	if w.broken {
		return w.report, nil
	}
	if w.report.From <= w.report.Archived {
		if err := w.links(ctx); err != nil {
			return w.report, err
		}
	}
	err = w.checkpoint(ctx, v)
	return w.report, err
}

type verifier struct {
	archive Archive
	earlier map[int64][]Checkpoint // not reached yet, by size
	report  Report
	tree    Tree
	broken  bool     // an entry is missing: after it no hash can be right
	key     [32]byte // random in each run, so that an attacker cannot construct a sum
	sum     linkSum  // over the links in the entries
}

func (w *verifier) problem(index int64, format string, args ...any) {
	if len(w.report.Problems) < maxProblems {
		w.report.Problems = append(w.report.Problems, Problem{index, fmt.Sprintf(format, args...)})
	}
}

func (w *verifier) entries(ctx context.Context) error {
	w.atSize()
	err := w.archive.Entries(ctx, w.report.From, func(k Entry) error {
		if next := w.tree.Size(); k.Index != next && k.Index > next {
			w.problem(next, "missing; the next one that is there is entry %d", k.Index)
			return errBroken
		} else if k.Index != next {
			w.problem(k.Index, "out of place")
			return errBroken
		}
		w.entry(k)
		return w.tiles(ctx)
	})
	w.report.Size = w.tree.Size()
	if bad := new(DamagedError); errors.As(err, &bad) {
		w.problem(bad.Index, "%v", err)
		err = errBroken
	}
	if w.broken = errors.Is(err, errBroken); w.broken {
		return nil
	}
	return err
}

// errBroken ends the reading.
var errBroken = errors.New("the log is broken")

func (w *verifier) entry(k Entry) {
	e, err := Decode([]byte(k.Text))
	switch {
	case err != nil:
		w.problem(k.Index, "not an event: %v", err)
	case e.Index != k.Index:
		w.problem(k.Index, "says of itself that it is entry %d", e.Index)
	case !sameColumns(e, k.Event):
		w.problem(k.Index, "the columns that are searched say something else")
	}
	for _, l := range e.Links {
		if k.Index >= w.report.Archived {
			w.sum.add(w.key, k.Index, l)
		}
	}
	w.tree.Append(tlog.RecordHash([]byte(k.Text)))
	w.atSize()
}

// sameColumns reports whether the columns that are searched are those of e.
func sameColumns(e, columns postern.Event) bool {
	return e.Time.Equal(columns.Time) && e.Kind == columns.Kind && e.Outcome == columns.Outcome &&
		e.Person == columns.Person && e.Address == columns.Address && e.Object == columns.Object
}

// atSize compares the tree with the earlier checkpoints of its size.
func (w *verifier) atSize() {
	for _, c := range w.earlier[w.tree.Size()] {
		if c.Root != w.tree.Root() {
			w.problem(-1, "its first %d entries are not those that the earlier checkpoint signed", c.Size)
		}
	}
	delete(w.earlier, w.tree.Size())
}

// tiles compares the tiles that are finished with those that are kept.
func (w *verifier) tiles(ctx context.Context) error {
	for _, t := range w.tree.Finished() {
		if err := w.tile(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (w *verifier) tile(ctx context.Context, t Tile) error {
	kept, err := w.archive.Tile(ctx, t.Level, t.N)
	if err != nil || bytes.Equal(kept, t.Data) {
		return err
	}
	if t.Level > 0 || len(kept) != len(t.Data) {
		w.problem(-1, "the hashes of tile %d/%d are not those of the entries", t.Level, t.N)
		return nil
	}
	w.compare(t.N*tileWidth, split(kept), split(t.Data))
	return nil
}

// compare reports the entries whose hashes differ from those that are kept.
func (w *verifier) compare(first int64, kept, is []tlog.Hash) {
	for i := range is {
		if i < len(kept) && is[i] != kept[i] {
			w.problem(first+int64(i), "not the entry that was written")
		}
	}
}

func (w *verifier) links(ctx context.Context) error {
	var kept linkSum
	err := w.archive.Links(ctx, func(index int64, l postern.Link) error {
		kept.add(w.key, index, l)
		return nil
	})
	if err == nil && kept != w.sum {
		w.problem(-1, "the links that are searched are not those in the entries")
	}
	return err
}

// linkSum is a sum over a set of links that does not depend on their order.
type linkSum [4]uint64

func (s *linkSum) add(key [32]byte, index int64, l postern.Link) {
	b := slices.Clone(key[:])
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Kind)))
	b = append(append(b, l.Kind...), l.ID...)
	h := sha256.Sum256(b)
	for i := range s {
		s[i] += binary.BigEndian.Uint64(h[8*i:])
	}
}

func (w *verifier) checkpoint(ctx context.Context, v note.Verifier) error {
	kept, err := w.archive.State(ctx)
	if err != nil {
		return err
	}
	w.report.Checkpoint = kept.Checkpoint
	if edge := w.tree.Edge(); kept.Size == w.tree.Size() && !bytes.Equal(kept.Edge, edge) {
		w.problem(-1, "the hashes of the tree's edge are not those of the entries")
		width := edgeWidth(kept.Size, 0) * tlog.HashSize
		w.compare(kept.Size/tileWidth*tileWidth, split(kept.Edge[:min(width, len(kept.Edge))]), split(edge[:width]))
	}
	c, err := OpenLatest(kept.Checkpoint, v)
	switch {
	case err != nil:
		w.problem(-1, "%v", err)
	case c.Size > w.tree.Size():
		w.problem(-1, "the checkpoint signs %d entries, and only %d are there", c.Size, w.tree.Size())
	case c.Size < w.tree.Size():
		w.problem(-1, "the checkpoint signs %d entries, and %d are there", c.Size, w.tree.Size())
	case c.Root != w.tree.Root():
		w.problem(-1, "the entries are not those that the checkpoint signs")
	case c.Size != kept.Size:
		w.problem(-1, "the size that is kept is %d, not %d", kept.Size, c.Size)
	}
	for size := range w.earlier {
		w.problem(-1, "an earlier checkpoint signed %d entries, and only %d are there", size, w.tree.Size())
	}
	return nil
}
