package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/postern-project/postern/timeline"
)

// ReadLog calls f with the timeline as it is at one moment.
func (s Timeline) ReadLog(ctx context.Context, f func(ctx context.Context, a timeline.Archive) error) error {
	return s.Read(ctx, func(ctx context.Context, tx *Tx) error { return f(ctx, archive{tx, s.files}) })
}

// Cosigned returns the last checkpoint that enough witnesses cosigned, with their
// signatures; "" if there is none.
func (s Timeline) Cosigned(ctx context.Context) (string, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (string, error) { return tx.cosigned(ctx) })
}

func (tx *Tx) cosigned(ctx context.Context) (signed string, err error) {
	err = tx.QueryRow(ctx, `SELECT checkpoint FROM log_cosigned WHERE id = 1`).Scan(&signed)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return signed, err
}

// notCosigned is the problem of a witness of which something else is kept than it cosigned.
const notCosigned = "what is kept of it is not what it cosigned"

// Witnesses returns what each witness said last, by name. One that did not cosign what is kept of it is
// as one that never did, with a problem.
func (s Timeline) Witnesses(ctx context.Context) ([]timeline.Witnessed, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]timeline.Witnessed, error) {
		list, err := tx.witnesses(ctx)
		if err != nil || len(list) == 0 {
			return nil, err
		}
		v, err := tx.logVerifier(ctx)
		if err != nil {
			return nil, err
		}
		for i, w := range list {
			if w.Check(v) != nil {
				list[i] = timeline.Witnessed{Name: w.Name, Key: w.Key, Problem: notCosigned}
			}
		}
		return list, nil
	})
}

func (tx *Tx) witnesses(ctx context.Context) (list []timeline.Witnessed, err error) {
	rows, err := tx.Query(ctx, `SELECT name, key, size, time, checkpoint, problem FROM log_witnesses ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var w timeline.Witnessed
		var at int64
		if err := rows.Scan(&w.Name, &w.Key, &w.Size, &at, &w.Checkpoint, &w.Problem); err != nil {
			return nil, err
		}
		w.Time = fromMicros(at)
		list = append(list, w)
	}
	return list, rows.Err()
}

// KeepWitnessed keeps what all witnesses said last, in place of what is kept, and the
// checkpoint that enough of them cosigned; "" if there is no new one.
func (s Timeline) KeepWitnessed(ctx context.Context, all []timeline.Witnessed, cosigned string) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM log_witnesses`); err != nil {
			return err
		}
		for _, w := range all {
			if _, err := tx.Exec(ctx, `INSERT INTO log_witnesses (name, key, size, time, checkpoint, problem)
				VALUES ($1, $2, $3, $4, $5, $6)`,
				w.Name, w.Key, w.Size, micros(w.Time), w.Checkpoint, w.Problem); err != nil {
				return err
			}
		}
		if cosigned == "" {
			return nil
		}
		_, err := tx.Exec(ctx, `INSERT INTO log_cosigned (id, checkpoint) VALUES (1, $1)
			ON CONFLICT (id) DO UPDATE SET checkpoint = excluded.checkpoint`, cosigned)
		return err
	})
}
