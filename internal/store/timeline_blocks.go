package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// blockWidth is how many entries of the timeline one block has. What is known of each
// block of entries, once it is full, costs far less than an index of the entries does:
// between which times they are (entries of other hosts come late, so that the order is
// not that of time), and which kinds, outcomes and hosts they have.
const blockWidth = 256

// blocksAtOnce is how many blocks one query finds.
const blocksAtOnce = 128

// block is what is known of a block of entries.
type block struct {
	earliest, latest time.Time
	terms            map[string]bool
}

func (b *block) add(e postern.Event) {
	if b.terms == nil {
		b.earliest, b.latest, b.terms = e.Time, e.Time, map[string]bool{}
	}
	if e.Time.Before(b.earliest) {
		b.earliest = e.Time
	}
	if e.Time.After(b.latest) {
		b.latest = e.Time
	}
	for i, r := range e.Kind { // a filter's kind may be the beginning of one
		if r == '.' {
			b.terms[kindTerm(e.Kind[:i])] = true
		}
	}
	b.terms[kindTerm(e.Kind)] = true
	b.terms[outcomeTerm(e.Outcome)] = true
	if e.Host != "" {
		b.terms[hostTerm(e.Host)] = true
	}
}

func kindTerm(kind string) string                { return "kind " + kind }
func outcomeTerm(outcome postern.Outcome) string { return "outcome " + string(outcome) }
func hostTerm(host string) string                { return "host " + host }

// terms returns what a filter asks of a block, the rarest first.
func terms(f timeline.Filter) (list []string) {
	if f.Host != "" {
		list = append(list, hostTerm(f.Host))
	}
	if f.Kind != "" {
		list = append(list, kindTerm(f.Kind))
	}
	if f.Outcome != "" {
		list = append(list, outcomeTerm(f.Outcome))
	}
	return list
}

// addBlocks records the blocks that are full with the entries of a batch, of which the
// first has index from.
func (tx *Tx) addBlocks(ctx context.Context, from int64, events []postern.Event) error {
	size := from + int64(len(events))
	for n := from / blockWidth; n < size/blockWidth; n++ {
		b := new(block)
		if first := n * blockWidth; first < from {
			if err := tx.readBlock(ctx, b, span{first, from}); err != nil {
				return err
			}
		}
		for _, e := range events[max(0, n*blockWidth-from) : (n+1)*blockWidth-from] {
			b.add(e)
		}
		tx.putBlock(n, b)
	}
	return nil
}

// readBlock adds the entries of a span to a block.
func (tx *Tx) readBlock(ctx context.Context, b *block, s span) error {
	entries, err := tx.entriesIn(ctx, s)
	for _, e := range entries {
		b.add(e)
	}
	return err
}

// entriesIn returns the entries of a span.
func (tx *Tx) entriesIn(ctx context.Context, s span) ([]postern.Event, error) {
	return tx.readEntries(ctx, `e.idx >= $1 AND e.idx < $2`, s.from, s.to)
}

// readEntries returns the entries for which a condition on the columns of e holds, or what
// else stands behind WHERE.
func (tx *Tx) readEntries(ctx context.Context, where string, args ...any) (list []postern.Event, err error) {
	rows, err := tx.Query(ctx, `SELECT `+keptColumns+` FROM log_events e WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k kept
		if err := rows.Scan(k.fields()...); err != nil {
			return nil, err
		}
		e, err := timeline.Decode([]byte(k.text()))
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

func (tx *Tx) putBlock(n int64, b *block) {
	tx.later(`INSERT INTO log_blocks (block, earliest, latest) VALUES ($1, $2, $3)`,
		n, micros(b.earliest), micros(b.latest))
	var rows [][]any
	for term := range b.terms {
		rows = append(rows, []any{term, n})
	}
	tx.insertLater(`INSERT INTO log_terms (term, block)`, rows)
}

// spans calls f with the spans of entries that a filter may select, in the order in
// which it selects them, until f wants no more.
func (tx *Tx) spans(ctx context.Context, f timeline.Filter, indexed bool, each func(span) (bool, error)) error {
	w := blockWalk{tx: tx, filter: f, each: each}
	if !indexed {
		w.terms = terms(f)
	}
	w.timed = !f.Since.IsZero() || !f.Until.IsZero()
	if len(w.terms) == 0 && !w.timed {
		_, err := each(span{f.From, math.MaxInt64})
		return err
	}
	var full int64
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(block) + 1, 0) FROM log_blocks`).Scan(&full); err != nil {
		return err
	}
	if f.Before > 0 {
		full = min(full, (f.Before+blockWidth-1)/blockWidth)
	}
	rest := span{max(f.From, full*blockWidth), math.MaxInt64}
	walk := func() (bool, error) { return w.walk(ctx, span{f.From / blockWidth, full}, indexed) }
	if f.Last {
		if more, err := each(rest); err != nil || !more {
			return err
		}
		_, err := walk()
		return err
	}
	if more, err := walk(); err != nil || !more {
		return err
	}
	_, err := each(rest)
	return err
}

// blockWalk finds blocks that a filter may select entries of.
type blockWalk struct {
	tx     *Tx
	filter timeline.Filter
	terms  []string
	timed  bool
	each   func(span) (bool, error)
}

// walk visits the blocks of a range that may have entries that match, or all of it
// from the first to the last one of the time if an index finds the entries.
func (w *blockWalk) walk(ctx context.Context, blocks span, indexed bool) (more bool, err error) {
	if w.timed {
		if blocks, err = w.ofTime(ctx, blocks); err != nil || blocks.from >= blocks.to {
			return true, err
		}
	}
	if indexed {
		return w.visit(blocks)
	}
	for blocks.from < blocks.to {
		found, err := w.find(ctx, blocks)
		if err != nil {
			return false, err
		}
		for _, run := range runs(found) {
			if more, err := w.visit(run); err != nil || !more {
				return false, err
			}
		}
		if len(found) < blocksAtOnce {
			break
		}
		if last := found[len(found)-1]; w.filter.Last {
			blocks.to = last
		} else {
			blocks.from = last + 1
		}
	}
	return true, nil
}

// visit hands over the entries of a run of blocks.
func (w *blockWalk) visit(run span) (bool, error) {
	return w.each(span{max(w.filter.From, run.from*blockWidth), run.to * blockWidth})
}

// ofTime returns the part of a range from the first block of the filter's time to the
// last one.
func (w *blockWalk) ofTime(ctx context.Context, blocks span) (span, error) {
	var first, last sql.NullInt64
	since, until := w.time()
	err := w.tx.QueryRow(ctx, `SELECT MIN(block), MAX(block) FROM log_blocks
		WHERE latest >= $1 AND earliest < $2`, since, until).Scan(&first, &last)
	if err != nil || !first.Valid {
		return span{}, err
	}
	return span{max(first.Int64, blocks.from), min(last.Int64+1, blocks.to)}, nil
}

func (w *blockWalk) time() (since, until int64) {
	if w.filter.Until.IsZero() {
		return micros(w.filter.Since), math.MaxInt64
	}
	return micros(w.filter.Since), micros(w.filter.Until)
}

// find returns the next blocks of a range that may have entries that match.
func (w *blockWalk) find(ctx context.Context, blocks span) (found []int64, err error) {
	query, args := `SELECT block FROM log_blocks WHERE block >= $1 AND block < $2
		AND latest >= $3 AND earliest < $4`, []any{blocks.from, blocks.to}
	if len(w.terms) == 0 {
		since, until := w.time()
		args = append(args, since, until)
	} else {
		query = `SELECT b.block FROM log_terms b WHERE b.block >= $1 AND b.block < $2 AND b.term = $3`
		for i, term := range w.terms {
			if args = append(args, term); i > 0 {
				query += fmt.Sprintf(` AND EXISTS (SELECT 1 FROM log_terms o WHERE o.term = $%d AND o.block = b.block)`,
					len(args))
			}
		}
	}
	query += ` ORDER BY block`
	if w.filter.Last {
		query += ` DESC`
	}
	rows, err := w.tx.Query(ctx, fmt.Sprintf(`%s LIMIT %d`, query, blocksAtOnce), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		found = append(found, n)
	}
	return found, rows.Err()
}

// runs joins blocks that stand beside each other.
func runs(blocks []int64) (joined []span) {
	for _, b := range blocks {
		n := len(joined) - 1
		switch {
		case n >= 0 && joined[n].to == b:
			joined[n].to++
		case n >= 0 && joined[n].from == b+1:
			joined[n].from--
		default:
			joined = append(joined, span{b, b + 1})
		}
	}
	return joined
}
