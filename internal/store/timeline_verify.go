package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// growing is the timeline as [timeline.Archive] reads it while it is appended to, with
// a transaction for each page: one that lasts keeps SQLite's journal from being used
// again. What was read before does not change, so that the state in which the last page
// was read is that of all.
type growing struct {
	db       *DB
	files    timeline.Files  // what is in an archive; nil: that is not here
	state    *timeline.State // of all entries, once they have been read
	block    block           // of the entries since the last full one
	first    int64           // where it begins
	problems []timeline.Problem
}

// checked adds what was found of the blocks to a report.
func (g *growing) checked(r timeline.Report, err error) (timeline.Report, error) {
	r.Problems = append(r.Problems, g.problems...)
	return r, err
}

func (g *growing) State(ctx context.Context) (timeline.State, error) {
	if g.state != nil {
		return *g.state, nil
	}
	return readOne(ctx, g.db, func(ctx context.Context, tx *Tx) (timeline.State, error) {
		return archive{tx, g.files}.State(ctx)
	})
}

func (g *growing) Entries(ctx context.Context, from int64, f func(timeline.Entry) error) error {
	archived, err := (Timeline{g.db, g.files}).Archived(ctx)
	if err != nil {
		return err
	}
	if from, err = readFiles(ctx, g.files, archived, from, f); err != nil {
		return err
	}
	g.first = (from + blockWidth - 1) / blockWidth * blockWidth
	return eachEntry(from, func(k timeline.Entry) error {
		if err := f(k); err != nil {
			return err
		}
		return g.addToBlock(ctx, k.Text, k.Index)
	}, func(after int64) (page []timeline.Entry, err error) {
		err = g.db.Read(ctx, func(ctx context.Context, tx *Tx) error {
			if page, err = (archive{tx, g.files}).page(ctx, after); err != nil || len(page) == entriesPage {
				return err
			}
			state, err := archive{tx, g.files}.State(ctx)
			g.state = &state
			return err
		})
		return page, err
	})
}

// addToBlock adds the next entry to the block that is checked when it is full.
func (g *growing) addToBlock(ctx context.Context, text string, index int64) error {
	e, err := timeline.Decode([]byte(text))
	if err != nil || index < g.first {
		return nil //nolint:nilerr // that the entry is damaged is reported
	}
	if g.block.add(e); index+1 < g.first+blockWidth {
		return nil
	}
	found, err := g.db.finds(ctx, g.first/blockWidth, &g.block)
	if err == nil && !found {
		g.problems = append(g.problems, timeline.Problem{
			Index: -1, What: fmt.Sprintf("entries %d to %d are not found by what they say", g.first, index),
		})
	}
	g.first, g.block = index+1, block{}
	return err
}

// finds reports whether a search finds a block by all that it has.
func (db *DB) finds(ctx context.Context, n int64, b *block) (bool, error) {
	args := []any{n, micros(b.earliest), micros(b.latest)}
	var marks []string
	for term := range b.terms {
		args = append(args, term)
		marks = append(marks, fmt.Sprintf("$%d", len(args)))
	}
	return readOne(ctx, db, func(ctx context.Context, tx *Tx) (bool, error) {
		var found int
		err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM log_blocks b JOIN log_terms t ON t.block = b.block
			WHERE b.block = $1 AND b.earliest <= $2 AND b.latest >= $3
			AND t.term IN (`+strings.Join(marks, ", ")+`)`, args...).Scan(&found)
		return found == len(b.terms), err
	})
}

// linksPage is how many links one query reads.
const linksPage = 1000

func (g *growing) Links(ctx context.Context, f func(index int64, l postern.Link) error) error {
	var last keptLink
	for {
		var page []keptLink
		err := g.db.Read(ctx, func(ctx context.Context, tx *Tx) (err error) {
			page, err = tx.linksAfter(ctx, last)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		last = page[len(page)-1]
		page = slices.DeleteFunc(page, func(l keptLink) bool {
			return l.later && l.index >= g.state.Size || l.index >= 0 && l.index < g.state.Archived.Size
		})
		for _, l := range page {
			if err := f(l.index, l.Link); err != nil {
				return err
			}
		}
	}
}

// keptLink is a link in the table that is searched.
type keptLink struct {
	postern.Link
	index int64
	later bool // of an entry that the timeline has by now
}

// linksAfter returns the next links behind one, in the order of their key.
func (tx *Tx) linksAfter(ctx context.Context, last keptLink) (page []keptLink, err error) {
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT kind, id, idx, idx < (SELECT size FROM log_state WHERE id = 1)
		FROM log_links WHERE (kind, id, idx) > ($1, $2, $3) ORDER BY kind, id, idx LIMIT %d`, linksPage),
		last.Kind, last.ID, last.index)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var l keptLink
		if err := rows.Scan(&l.Kind, &l.ID, &l.index, &l.later); err != nil {
			return nil, err
		}
		page = append(page, l)
	}
	return page, rows.Err()
}

func (g *growing) Tile(ctx context.Context, level int, n int64) ([]byte, error) {
	return readOne(ctx, g.db, func(ctx context.Context, tx *Tx) ([]byte, error) {
		return archive{tx, g.files}.Tile(ctx, level, n)
	})
}
