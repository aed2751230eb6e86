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

// Archive is a whole log as it is kept, seen at one moment.
type Archive interface {
	// State returns what is kept of the log as a whole.
	State(ctx context.Context) (State, error)
	// Lines calls f with every kept line, in the order of their index.
	Lines(ctx context.Context, f func(Kept) error) error
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
}

// Kept is a line as it is kept, with the parts of it that are kept beside it
// to be searched.
type Kept struct {
	Line string
	postern.Event
}

// Problem is one thing that is wrong with a log.
type Problem struct {
	Index int64  `json:"index"` // of the line; -1 when it is of no one line
	What  string `json:"what"`
}

func (p Problem) String() string {
	if p.Index < 0 {
		return p.What
	}
	return fmt.Sprintf("line %d: %s", p.Index, p.What)
}

// Report is what Verify found.
type Report struct {
	Size       int64     `json:"size"`       // lines that are there
	Checkpoint string    `json:"checkpoint"` // the log's own
	Problems   []Problem `json:"problems"`   // none means that all is well; at most maxProblems
}

const maxProblems = 100

// Verify checks a whole log: that every line is the one that was hashed and
// stands in its place, that the parts kept beside it and its links say the
// same, and that all of them together are what the checkpoint signs. With
// earlier checkpoints it also checks that the log still begins with what they
// signed: they find a log that was cut, or written anew and signed with its
// own key.
//
// The error is that of reading; what is wrong with the log is in the report.
func Verify(ctx context.Context, a Archive, v note.Verifier, earlier ...string) (Report, error) {
	w := &verifier{archive: a, earlier: map[int64][]Checkpoint{}}
	for _, signed := range earlier {
		c, err := OpenCheckpoint(signed, v)
		if err != nil {
			return Report{}, postern.Errorf(postern.Invalid, "the earlier %w", err).WithHint("it must be one of this log's, as log verify --save wrote it")
		}
		w.earlier[c.Size] = append(w.earlier[c.Size], c)
	}
	rand.Read(w.key[:]) // never fails
	if err := w.lines(ctx); err != nil {
		return w.report, err
	}
	if w.broken {
		return w.report, nil
	}
	if err := w.links(ctx); err != nil {
		return w.report, err
	}
	err := w.checkpoint(ctx, v)
	return w.report, err
}

type verifier struct {
	archive Archive
	earlier map[int64][]Checkpoint // not reached yet, by size
	report  Report
	tree    Tree
	broken  bool     // a line is missing: after it no hash can be right
	key     [32]byte // of this run, so that nobody can aim at a sum
	sum     linkSum  // over the links in the lines
}

func (w *verifier) problem(index int64, format string, args ...any) {
	if len(w.report.Problems) < maxProblems {
		w.report.Problems = append(w.report.Problems, Problem{index, fmt.Sprintf(format, args...)})
	}
}

func (w *verifier) lines(ctx context.Context) error {
	w.atSize()
	err := w.archive.Lines(ctx, func(k Kept) error {
		if next := w.tree.Size(); k.Index != next && k.Index > next {
			w.problem(next, "missing; the next one that is there is line %d", k.Index)
			return errBroken
		} else if k.Index != next {
			w.problem(k.Index, "out of place")
			return errBroken
		}
		w.line(k)
		return w.tiles(ctx)
	})
	w.report.Size = w.tree.Size()
	if w.broken = errors.Is(err, errBroken); w.broken {
		return nil
	}
	return err
}

// errBroken ends the reading.
var errBroken = errors.New("the log is broken")

func (w *verifier) line(k Kept) {
	e, err := Decode([]byte(k.Line))
	switch {
	case err != nil:
		w.problem(k.Index, "not an event: %v", err)
	case e.Index != k.Index:
		w.problem(k.Index, "says of itself that it is line %d", e.Index)
	case !e.Time.Equal(k.Time) || e.Kind != k.Kind || e.Outcome != k.Outcome || e.Person != k.Person || e.Address != k.Address || e.Object != k.Object:
		w.problem(k.Index, "what is kept beside it to be searched says something else")
	}
	for _, l := range e.Links {
		w.sum.add(w.key, k.Index, l)
	}
	w.tree.Append(tlog.RecordHash([]byte(k.Line)))
	w.atSize()
}

// atSize compares the tree with the earlier checkpoints of its size.
func (w *verifier) atSize() {
	for _, c := range w.earlier[w.tree.Size()] {
		if c.Root != w.tree.Root() {
			w.problem(-1, "its first %d lines are not those that the earlier checkpoint signed", c.Size)
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
		w.problem(-1, "the hashes of tile %d/%d are not those of the lines", t.Level, t.N)
		return nil
	}
	w.compare(t.N*tileWidth, split(kept), split(t.Data))
	return nil
}

// compare names the lines whose hashes differ from those that are kept.
func (w *verifier) compare(first int64, kept, is []tlog.Hash) {
	for i := range is {
		if i < len(kept) && is[i] != kept[i] {
			w.problem(first+int64(i), "not the line that was written")
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
		w.problem(-1, "the links that are kept to be searched are not those in the lines")
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
		w.problem(-1, "the hashes of the tree's edge are not those of the lines")
		width := edgeWidth(kept.Size, 0) * tlog.HashSize
		w.compare(kept.Size/tileWidth*tileWidth, split(kept.Edge[:min(width, len(kept.Edge))]), split(edge[:width]))
	}
	c, err := OpenCheckpoint(kept.Checkpoint, v)
	switch {
	case err != nil:
		w.problem(-1, "%v", err)
	case c.Size > w.tree.Size():
		w.problem(-1, "the checkpoint signs %d lines, and only %d are there", c.Size, w.tree.Size())
	case c.Size < w.tree.Size():
		w.problem(-1, "the checkpoint signs %d lines, and %d are there", c.Size, w.tree.Size())
	case c.Root != w.tree.Root():
		w.problem(-1, "the lines are not those that the checkpoint signs")
	case c.Size != kept.Size:
		w.problem(-1, "the size that is kept is %d, not %d", kept.Size, c.Size)
	}
	for size := range w.earlier {
		w.problem(-1, "an earlier checkpoint signed %d lines, and only %d are there", size, w.tree.Size())
	}
	return nil
}
