package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// UseArchive has the timeline read from these files what was moved there; nil is none.
// It is called before the timeline is read.
func (db *DB) UseArchive(files timeline.Files) { db.files = files }

// ArchivedIn returns where entries of the timeline were moved, "" if none were.
func (db *DB) ArchivedIn(ctx context.Context) (string, error) {
	a, err := Timeline{db, nil}.Archived(ctx)
	return a.Dir, err
}

// Elsewhere fails with [postern.NotFound] if an entry is in an archive that is not here.
func (s Timeline) Elsewhere(ctx context.Context, index int64) error {
	a, err := s.Archived(ctx)
	if err == nil && s.files == nil && index >= 0 && index < a.Size {
		err = a.NotHere()
	}
	return err
}

// Recent returns the timeline without what is in an archive.
func (s Timeline) Recent() Timeline { return Timeline{s.DB, nil} }

// Archived returns which entries were moved into files.
func (s Timeline) Archived(ctx context.Context) (timeline.Archived, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (timeline.Archived, error) { return tx.archived(ctx) })
}

func (tx *Tx) archived(ctx context.Context) (a timeline.Archived, err error) {
	err = tx.QueryRow(ctx, `SELECT size, removed, checkpoint, dir FROM log_archive WHERE id = 1`).
		Scan(&a.Size, &a.Removed, &a.Checkpoint, &a.Dir)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return a, err
}

// witnessGone is after how long without a cosignature a witness is not waited for.
const witnessGone = 30 * 24 * time.Hour

// Archivable returns how many of the first entries are not waited for: notifications and
// alerts have read them, and witnesses have cosigned them.
func (s Timeline) Archivable(ctx context.Context) (int64, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (n int64, err error) {
		err = tx.QueryRow(ctx, `SELECT MIN(n) FROM (
			SELECT size AS n FROM log_state
			UNION ALL SELECT next FROM alert_progress
			UNION ALL SELECT CAST(value AS BIGINT) FROM portal_settings WHERE name = $1
			UNION ALL SELECT size FROM log_witnesses WHERE size > 0 AND time > $2) AS waiting`,
			notifiedSetting, micros(s.Now().Add(-witnessGone))).Scan(&n)
		return n, err
	})
}

// SizeAt returns how many of the first entries happened before a time.
func (s Timeline) SizeAt(ctx context.Context, before time.Time) (int64, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (n int64, err error) {
		err = tx.QueryRow(ctx, `SELECT COALESCE((SELECT MIN(idx) FROM log_events WHERE time >= $1),
			(SELECT size FROM log_state WHERE id = 1))`, micros(before)).Scan(&n)
		return n, err
	})
}

// SignFirst returns a checkpoint of the timeline's first entries, as many as size. It
// fails unless they are those of the checkpoint that the timeline has now.
func (s Timeline) SignFirst(ctx context.Context, size int64) (string, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (string, error) {
		keys, err := tx.logKeys(ctx)
		if err != nil {
			return "", err
		}
		v, err := timeline.ParseKeys(keys.public)
		if err != nil {
			return "", err
		}
		a := archive{tx, s.files}
		_, root, err := timeline.RootAt(ctx, a, size)
		if err != nil {
			return "", err
		}
		c := timeline.Checkpoint{Origin: v.Name(), Size: size, Root: root}
		if err := timeline.CheckRoot(ctx, a, v, c); err != nil {
			return "", err
		}
		return c.Sign(keys.signers...)
	})
}

// KeepArchived records that the first entries are in files: to.Size of them, where there
// were was.Size. It fails with [postern.Conflict] if that is not so any more.
func (s Timeline) KeepArchived(ctx context.Context, was, to timeline.Archived, e postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		now, err := tx.archived(ctx)
		if err != nil {
			return err
		}
		if now != was {
			return postern.Errorf(postern.Conflict, "the timeline was archived by another process meanwhile")
		}
		if _, err := tx.Exec(ctx, `INSERT INTO log_archive (id, size, removed, checkpoint, dir)
			VALUES (1, $1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET
			size = excluded.size, checkpoint = excluded.checkpoint, dir = excluded.dir`,
			to.Size, was.Removed, to.Checkpoint, to.Dir); err != nil {
			return err
		}
		return tx.Append(ctx, e)
	})
}

// removeStep is how many entries one transaction takes out of the database.
const removeStep = 1024 // 16 tiles

// RemoveArchived takes entries that are in files out of the database, as many as one
// transaction may. It reports whether all are out.
func (s Timeline) RemoveArchived(ctx context.Context) (done bool, err error) {
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		a, err := tx.archived(ctx)
		if err != nil {
			return err
		}
		to := min(a.Removed+removeStep, a.Size)
		if done = to == a.Size; a.Removed == a.Size {
			return nil
		}
		return tx.removeEntries(ctx, a.Removed, to)
	})
	return done, err
}

// removeEntries takes out entries, their links and blocks. The tree keeps their hashes: hosts and
// witnesses may ask for a proof from any size that they saw.
func (tx *Tx) removeEntries(ctx context.Context, from, to int64) error {
	blocks := map[int64]*block{}
	for n := from / blockWidth; n < to/blockWidth; n++ {
		entries, err := tx.entriesIn(ctx, span{n * blockWidth, (n + 1) * blockWidth})
		if err != nil {
			return err
		}
		blocks[n] = new(block)
		for _, e := range entries {
			blocks[n].add(e)
			if err := tx.removeLinks(ctx, e); err != nil {
				return err
			}
		}
	}
	if _, err := tx.Exec(ctx, `DELETE FROM log_events WHERE idx >= $1 AND idx < $2`, from, to); err != nil {
		return err
	}
	for n := from / blockWidth; n < to/blockWidth; n++ {
		if err := tx.removeBlock(ctx, n, blocks[n]); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `UPDATE log_archive SET removed = $1 WHERE id = 1`, to)
	return err
}

func (tx *Tx) removeBlock(ctx context.Context, n int64, b *block) error {
	for term := range b.terms {
		if _, err := tx.Exec(ctx, `DELETE FROM log_terms WHERE term = $1 AND block = $2`, term, n); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `DELETE FROM log_blocks WHERE block = $1`, n)
	return err
}

// removeLinks takes out the links of an entry, by what the entry itself says.
func (tx *Tx) removeLinks(ctx context.Context, e postern.Event) error {
	for _, l := range e.Links {
		if _, err := tx.Exec(ctx, `DELETE FROM log_links WHERE kind = $1 AND id = $2 AND idx = $3`, l.Kind, l.ID,
			e.Index); err != nil {
			return err
		}
	}
	return nil
}

// readFiles calls f with the archived entries from an index on, and returns the index from
// which the entries are in the database.
func readFiles(
	ctx context.Context, files timeline.Files, a timeline.Archived, from int64, f func(timeline.Entry) error,
) (int64, error) {
	if from >= a.Size {
		return from, nil
	}
	if files == nil {
		return from, a.NotHere()
	}
	return a.Size, files.Entries(ctx, from, a.Size, f)
}

// errFull ends the reading of an archive.
var errFull = errors.New("as many as asked for")

// Events returns the events of the timeline that match, in their order, also those in the
// archive if that is here. It is the store's side of [timeline.Source].
func (s Timeline) Events(ctx context.Context, f timeline.Filter) ([]postern.Event, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	if s.files == nil {
		return s.recent(ctx, f)
	}
	a, err := s.Archived(ctx)
	if err != nil {
		return nil, err
	}
	recent := f
	recent.From = max(f.From, a.Size)
	if f.Last {
		events, err := s.recent(ctx, recent)
		if err != nil || f.From >= a.Size || f.Limit > 0 && len(events) == f.Limit {
			return events, err
		}
		f.Limit = max(f.Limit-len(events), 0)
		older, err := s.older(ctx, f, a.Size)
		return append(older, events...), err
	}
	older, err := s.older(ctx, f, a.Size)
	if err != nil || f.Limit > 0 && len(older) == f.Limit {
		return older, err
	}
	recent.Limit = max(f.Limit-len(older), 0)
	events, err := s.recent(ctx, recent)
	return append(older, events...), err
}

// recent returns those that are in the database.
func (s Timeline) recent(ctx context.Context, f timeline.Filter) ([]postern.Event, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]postern.Event, error) {
		return tx.Events(ctx, f)
	})
}

// older returns those that are in the archive. Nothing is indexed there.
func (s Timeline) older(ctx context.Context, f timeline.Filter, size int64) (events []postern.Event, err error) {
	if f.Before > 0 {
		size = min(size, f.Before)
	}
	if f.From >= size {
		return nil, nil
	}
	err = s.files.Entries(ctx, f.From, size, func(e timeline.Entry) error {
		if !f.Match(e.Event) {
			return nil
		}
		events = append(events, e.Event)
		switch {
		case f.Limit == 0 || len(events) < f.Limit:
		case !f.Last:
			return errFull
		case len(events) >= 2*f.Limit: // only the last ones count
			events = append(events[:0], events[len(events)-f.Limit:]...)
		}
		return nil
	})
	if errors.Is(err, errFull) {
		err = nil
	}
	if f.Limit > 0 && len(events) > f.Limit {
		events = events[len(events)-f.Limit:]
	}
	return events, err
}
