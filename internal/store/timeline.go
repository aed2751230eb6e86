package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Timeline reads the timeline: it is a [timeline.Source].
type Timeline struct {
	*DB
	files timeline.Files // what is in an archive; nil: that is not here
}

// Timeline returns the timeline in the database.
func (db *DB) Timeline() Timeline { return Timeline{db, db.files} }

// LogSize returns the number of lines that the timeline has. It is cheap: one
// row by its key.
func (s Timeline) LogSize(ctx context.Context) (int64, error) {
	return s.readNumber(ctx, `SELECT size FROM log_state WHERE id = 1`)
}

// VerifyLog checks the whole timeline as [timeline.Verify] does, also against what its
// witnesses cosigned.
func (s Timeline) VerifyLog(ctx context.Context, earlier ...string) (timeline.Report, error) {
	v, err := s.presentKeys(ctx)
	if err != nil {
		return timeline.Report{}, err
	}
	witnesses, err := s.Witnesses(ctx)
	if err != nil {
		return timeline.Report{}, err
	}
	all := slices.Clone(earlier)
	for _, w := range witnesses {
		if w.Size > 0 {
			all = append(all, w.Checkpoint)
		}
	}
	report, err := s.verified(ctx, func(log timeline.Archive) (timeline.Report, error) {
		return timeline.Verify(ctx, log, v, all...)
	})
	report.Witnesses = witnesses
	for _, w := range witnesses {
		if w.Problem == notCosigned {
			report.Problems = append(report.Problems, timeline.Problem{Index: -1, What: w.String()})
		}
	}
	return report, err
}

// VerifyLogSince checks the timeline as [timeline.VerifySince] does.
func (s Timeline) VerifyLogSince(ctx context.Context, earlier string) (timeline.Report, error) {
	v, err := s.presentKeys(ctx)
	if err != nil {
		return timeline.Report{}, err
	}
	return s.verified(ctx, func(log timeline.Archive) (timeline.Report, error) {
		return timeline.VerifySince(ctx, log, v, earlier)
	})
}

// maxMoved is how often a verification begins again because entries were moved into files.
const maxMoved = 3

// verified verifies the timeline while it is appended to. If entries are moved into files meanwhile it
// begins again: those would be missing.
func (s Timeline) verified(
	ctx context.Context, verify func(timeline.Archive) (timeline.Report, error),
) (timeline.Report, error) {
	for range maxMoved {
		before, err := s.Archived(ctx)
		if err != nil {
			return timeline.Report{}, err
		}
		log := &growing{db: s.DB, files: s.files}
		report, failed := log.checked(verify(log))
		now, err := s.Archived(ctx)
		if err != nil || now.Size == before.Size {
			return report, cmp.Or(failed, err)
		}
	}
	return timeline.Report{}, postern.Errorf(postern.Unavailable, "entries are moved into an archive at the moment").
		WithHint("verify the timeline when that has ended")
}

// ProveEvent returns the proof that the timeline contains an entry, under the checkpoint
// that witnesses cosigned last if that has the entry. It fails
// with [postern.NotFound] if there is no such entry, and with
// [postern.Internal] if the timeline was tampered with.
func (s Timeline) ProveEvent(ctx context.Context, index int64) (timeline.Proof, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (timeline.Proof, error) {
		v, err := tx.logVerifier(ctx)
		if err != nil {
			return timeline.Proof{}, err
		}
		entry, err := archive{tx, s.files}.entry(ctx, index)
		if err != nil {
			return timeline.Proof{}, err
		}
		if signed, err := tx.cosigned(ctx); err != nil {
			return timeline.Proof{}, err
		} else if p, err := timeline.ProveUnder(ctx, archive{tx, s.files}, v, entry, index, signed); err == nil {
			return p, nil // which witnesses vouch for
		}
		p, err := timeline.Prove(ctx, archive{tx, s.files}, entry, index)
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
type archive struct {
	tx    *Tx
	files timeline.Files // nil: they are not here
}

func (a archive) State(ctx context.Context) (timeline.State, error) {
	s, err := a.tx.logState(ctx)
	if err != nil {
		return s, err
	}
	s.Archived, err = a.tx.archived(ctx)
	s.Missing = s.Archived.Size > 0 && a.files == nil
	return s, err
}

// logState returns the state of the timeline without its archive.
func (tx *Tx) logState(ctx context.Context) (s timeline.State, err error) {
	err = tx.QueryRow(ctx, `SELECT size, edge, checkpoint FROM log_state
		WHERE id = 1`).Scan(&s.Size, &s.Edge, &s.Checkpoint)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNoCheckpoint
	}
	return s, err
}

var errNoCheckpoint = postern.Errorf(postern.NotFound, "the timeline has no checkpoint")

// entry returns the text of an entry.
func (a archive) entry(ctx context.Context, index int64) (text string, err error) {
	err = a.Entries(ctx, index, func(e timeline.Entry) error {
		if e.Index == index {
			text = e.Text
		}
		return errFull
	})
	if err == nil || errors.Is(err, errFull) && text == "" {
		err = postern.Errorf(postern.NotFound, "there is no entry %d in the timeline", index)
	}
	if errors.Is(err, errFull) {
		err = nil
	}
	return text, err
}

// entriesPage is how many entries one query reads; tiles are read between queries.
const entriesPage = 1000

func (a archive) Entries(ctx context.Context, from int64, f func(timeline.Entry) error) error {
	archived, err := a.tx.archived(ctx)
	if err != nil {
		return err
	}
	if from, err = readFiles(ctx, a.files, archived, from, f); err != nil {
		return err
	}
	return eachEntry(from, f, func(after int64) ([]timeline.Entry, error) { return a.page(ctx, after) })
}

// eachEntry calls f with every entry from an index on, which it gets by pages of those
// behind an index.
func eachEntry(from int64, f func(timeline.Entry) error, page func(after int64) ([]timeline.Entry, error)) error {
	after := from - 1
	if from == 0 {
		after = math.MinInt64 // what is below 0 is out of place
	}
	for {
		entries, err := page(after)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, k := range entries {
			if err := f(k); err != nil {
				return err
			}
		}
		after = entries[len(entries)-1].Index
	}
}

func (a archive) page(ctx context.Context, after int64) ([]timeline.Entry, error) {
	rows, err := a.tx.Query(ctx, fmt.Sprintf(`SELECT %s FROM log_events e
		WHERE e.idx > $1 ORDER BY e.idx LIMIT %d`, keptColumns, entriesPage), after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []timeline.Entry
	for rows.Next() {
		var k kept
		if err := rows.Scan(k.fields()...); err != nil {
			return nil, err
		}
		page = append(page, k.entry())
	}
	return page, rows.Err()
}

func (a archive) Links(ctx context.Context, f func(index int64, l postern.Link) error) error {
	archived, err := a.tx.archived(ctx)
	if err != nil {
		return err
	}
	rows, err := a.tx.Query(ctx, `SELECT idx, kind, id FROM log_links WHERE idx < 0 OR idx >= $1`, archived.Size)
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
