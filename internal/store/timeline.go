package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
)

// Timeline reads the timeline: it is a [timeline.Source].
type Timeline struct{ *DB }

// Timeline returns the timeline in the database.
func (db *DB) Timeline() Timeline { return Timeline{db} }

// Events returns the events of the timeline that match, in their order. It is
// the store's side of [timeline.Source].
func (s Timeline) Events(ctx context.Context, f timeline.Filter) ([]postern.Event, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]postern.Event, error) {
		return tx.Events(ctx, f)
	})
}

// Events is [Timeline.Events] inside a transaction.
func (tx *Tx) Events(ctx context.Context, f timeline.Filter) ([]postern.Event, error) {
	if f.Kind == "" {
		return tx.eventsOfKind(ctx, f, "")
	}
	kinds, err := tx.kinds(ctx, f.Kind)
	if err != nil {
		return nil, err
	}
	var all []postern.Event
	for _, kind := range kinds { // each by the index
		events, err := tx.eventsOfKind(ctx, f, kind)
		if err != nil {
			return nil, err
		}
		all = append(all, events...)
	}
	slices.SortFunc(all, func(a, b postern.Event) int { return cmp.Compare(a.Index, b.Index) })
	if n := len(all) - f.Limit; f.Limit > 0 && n > 0 && f.Last {
		return all[n:], nil
	} else if f.Limit > 0 && n > 0 {
		return all[:f.Limit], nil
	}
	return all, nil
}

// kinds returns the kinds on the timeline that a filter's kind selects.
func (tx *Tx) kinds(ctx context.Context, selected string) ([]string, error) {
	list := []string{selected}
	for last := selected + "."; ; {
		var next sql.NullString
		err := tx.QueryRow(ctx, `SELECT MIN(kind) FROM log_events WHERE kind > $1 AND kind < $2`, last,
			selected+"/").Scan(&next) // / follows the dot
		if err != nil || !next.Valid {
			return list, err
		}
		last = next.String
		list = append(list, last)
	}
}

// eventsOfKind returns the events of one kind that match, "" for all kinds.
func (tx *Tx) eventsOfKind(ctx context.Context, f timeline.Filter, kind string) ([]postern.Event, error) {
	query, args := eventQuery(f, kind)
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var events []postern.Event
	for rows.Next() {
		var index int64
		var line string
		if err := rows.Scan(&index, &line); err != nil {
			return nil, err
		}
		e, err := timeline.Decode([]byte(line))
		if err != nil || e.Index != index {
			return nil, postern.Errorf(postern.Internal, "entry %d of the timeline is damaged", index).
				WithHint("verify the timeline")
		}
		if !f.Match(e) {
			continue
		}
		if events = append(events, e); len(events) == f.Limit {
			break
		}
	}
	if f.Last {
		slices.Reverse(events)
	}
	return events, rows.Err()
}

// eventQuery returns the query for every line that may match: the columns
// narrow it down, and Match decides.
func eventQuery(f timeline.Filter, kind string) (string, []any) {
	var where []string
	var args []any
	and := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	and(`idx >= $%d`, f.From)
	if f.Person != "" {
		and(`person = $%d`, f.Person)
	}
	if kind != "" {
		and(`kind = $%d`, kind)
	}
	// The index of outcomes is of those that are not OK.
	switch f.Outcome {
	case "":
	case postern.OK:
		where = append(where, `outcome = 'ok'`)
	default:
		and(`outcome <> 'ok' AND outcome = $%d`, string(f.Outcome))
	}
	if f.Address != "" && !strings.Contains(f.Address, "/") {
		and(`address = $%d`, f.Address)
	}
	if f.Object != "" && !strings.HasSuffix(f.Object, "*") {
		and(`object = $%d`, f.Object)
	}
	if !f.Since.IsZero() {
		and(`time >= $%d`, micros(f.Since))
	}
	if !f.Until.IsZero() {
		and(`time < $%d`, micros(f.Until))
	}
	if f.Link != (postern.Link{}) {
		and(`idx IN (SELECT l.idx FROM log_links l WHERE l.kind = $%d`, f.Link.Kind)
		and(`l.id = $%d)`, f.Link.ID)
	}
	query := `SELECT idx, line FROM log_events WHERE ` + strings.Join(where, " AND ") + ` ORDER BY idx`
	if f.Last {
		query += ` DESC`
	}
	return query, args
}

// LogSize returns the number of lines that the timeline has. It is cheap: one
// row by its key.
func (s Timeline) LogSize(ctx context.Context) (int64, error) {
	return s.readNumber(ctx, `SELECT size FROM log_state WHERE id = 1`)
}

// VerifyLog checks the whole timeline as [timeline.Verify] does.
func (s Timeline) VerifyLog(ctx context.Context, earlier ...string) (timeline.Report, error) {
	v, err := note.NewVerifier(s.verifier)
	if err != nil {
		return timeline.Report{}, err
	}
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (timeline.Report, error) {
		return timeline.Verify(ctx, archive{tx}, v, earlier...)
	})
}

// VerifyLogSince checks the timeline as [timeline.VerifySince] does.
func (s Timeline) VerifyLogSince(ctx context.Context, earlier string) (timeline.Report, error) {
	v, err := note.NewVerifier(s.verifier)
	if err != nil {
		return timeline.Report{}, err
	}
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (timeline.Report, error) {
		return timeline.VerifySince(ctx, archive{tx}, v, earlier)
	})
}

// ProveEvent returns the proof that the timeline contains an entry. It fails
// with [postern.NotFound] if there is no such entry, and with
// [postern.Internal] if the timeline was tampered with.
func (s Timeline) ProveEvent(ctx context.Context, index int64) (timeline.Proof, error) {
	v, err := note.NewVerifier(s.verifier)
	if err != nil {
		return timeline.Proof{}, err
	}
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (timeline.Proof, error) {
		var entry string
		err := tx.QueryRow(ctx, `SELECT line FROM log_events WHERE idx = $1`, index).Scan(&entry)
		if err != nil {
			return timeline.Proof{}, notFound(err, "there is no entry %d in the timeline", index)
		}
		p, err := timeline.Prove(ctx, archive{tx}, entry, index)
		if err != nil {
			return p, err
		}
		if _, _, err := p.Check(v); err != nil {
			return p, postern.Errorf(postern.Internal, "entry %d cannot be proved: it is not the one that was written",
				index).
				WithHint("verify the timeline")
		}
		return p, nil
	})
}

// archive is the timeline in one transaction, as [timeline.Archive] reads it.
type archive struct{ tx *Tx }

func (a archive) State(ctx context.Context) (s timeline.State, err error) {
	err = a.tx.QueryRow(ctx, `SELECT size, edge, checkpoint FROM log_state
		WHERE id = 1`).Scan(&s.Size, &s.Edge, &s.Checkpoint)
	return s, notFound(err, "the timeline has no checkpoint")
}

// entriesPage is how many entries one query reads; tiles are read between queries.
const entriesPage = 1000

func (a archive) Entries(ctx context.Context, from int64, f func(timeline.Entry) error) error {
	after := from - 1
	if from == 0 {
		after = -1 << 63 // what is below 0 is out of place
	}
	for {
		page, err := a.page(ctx, after)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, k := range page {
			if err := f(k); err != nil {
				return err
			}
		}
		after = page[len(page)-1].Index
	}
}

func (a archive) page(ctx context.Context, after int64) ([]timeline.Entry, error) {
	rows, err := a.tx.Query(ctx, fmt.Sprintf(`SELECT idx, time, kind, outcome, person, address, object, line
		FROM log_events
		WHERE idx > $1 ORDER BY idx LIMIT %d`, entriesPage), after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []timeline.Entry
	for rows.Next() {
		var k timeline.Entry
		var at int64
		if err := rows.Scan(&k.Index, &at, &k.Kind, &k.Outcome, &k.Person, &k.Address, &k.Object,
			&k.Text); err != nil {
			return nil, err
		}
		k.Time = fromMicros(at)
		page = append(page, k)
	}
	return page, rows.Err()
}

func (a archive) Links(ctx context.Context, f func(index int64, l postern.Link) error) error {
	rows, err := a.tx.Query(ctx, `SELECT idx, kind, id FROM log_links`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var index int64
		var l postern.Link
		if err := rows.Scan(&index, &l.Kind, &l.ID); err != nil {
			return err
		}
		if err := f(index, l); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (a archive) Tile(ctx context.Context, level int, n int64) (data []byte, err error) {
	err = a.tx.QueryRow(ctx, `SELECT data FROM log_tiles WHERE level = $1 AND n = $2`, level, n).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return data, err
}
