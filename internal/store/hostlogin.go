package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/rescue"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/tlog"
)

// Growth returns the newest checkpoint and the proof that the timeline contains its first
// older entries as they were, see [timeline.Growth].
func (s Timeline) Growth(
	ctx context.Context, older ...int64,
) (signed string, proofs []tlog.TreeProof, err error) {
	err = s.Read(ctx, func(ctx context.Context, tx *Tx) (err error) {
		signed, proofs, err = timeline.Growth(ctx, archive{tx, nil}, older...)
		return err
	})
	return signed, proofs, err
}

// Rescue keeps the hashes of hosts' rescue codes.
type Rescue struct{ *DB }

// Rescue returns the rescue codes' part of the database.
func (db *DB) Rescue() Rescue { return Rescue{db} }

// Replace puts a set in the place of the host's last one, as one made later, and records
// that: a host keeps none that is older than what it has. The event names who did it.
func (s Rescue) Replace(
	ctx context.Context, by postern.Actor, host string, set rescue.Set, event postern.Event,
) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		last, err := tx.rescueSet(ctx, host)
		if err != nil {
			return err
		}
		if !set.Made.After(last.Made) { // by a clock that was ahead
			set.Made = last.Made.Add(time.Microsecond)
		}
		text, err := json.Marshal(set)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO host_rescue (host, codes) VALUES ($1, $2)
			ON CONFLICT (host) DO UPDATE SET codes = excluded.codes`, host, string(text)); err != nil {
			return err
		}
		e := event
		e.Kind, e.Outcome, e.Object, e.Count = postern.EventHostRescue, postern.OK, host, int64(len(set.Hashes))
		return tx.Append(ctx, e)
	})
}

// Set returns the set of a host, the zero Set for none.
func (s Rescue) Set(ctx context.Context, host string) (rescue.Set, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (rescue.Set, error) { return tx.rescueSet(ctx, host) })
}

func (tx *Tx) rescueSet(ctx context.Context, host string) (set rescue.Set, err error) {
	var text string
	err = tx.QueryRow(ctx, `SELECT codes FROM host_rescue WHERE host = $1`, host).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return set, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &set)
	}
	return set, err
}

// Taken forgets the hashes of a host's set once the host has it: it gets a set once, so
// that losing the file in which it counts what was used makes no code valid again.
func (s Rescue) Taken(ctx context.Context, host string, set rescue.Set) error {
	set.Hashes = nil
	text, err := json.Marshal(set)
	if err != nil {
		return err
	}
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		now, err := tx.rescueSet(ctx, host)
		if err != nil || now.ID != set.ID { // replaced meanwhile
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE host_rescue SET codes = $1 WHERE host = $2`, string(text), host)
		return err
	})
}
