package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/postern-project/postern/internal/relay"
)

// maxAgents bounds how many agents of one source are remembered: a host has one,
// and a new one when its spool was lost.
const maxAgents = 64

var _ relay.Store = Relay{}

// Relay keeps how far the events of other hosts have been written: it is the
// [relay.Store].
type Relay struct{ *DB }

// Relay returns the relay's part of the database.
func (db *DB) Relay() Relay { return Relay{db} }

// Relay implements [relay.Store].
func (s Relay) Relay(ctx context.Context, source, agent string, batch []relay.Numbered) (seq int64, err error) {
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		seq, err = relayed(ctx, tx, source, agent, batch)
		return err
	})
	return seq, err
}

func relayed(ctx context.Context, tx *Tx, source, agent string, batch []relay.Numbered) (seq int64, err error) {
	err = tx.QueryRow(ctx, `SELECT seq FROM relay_agents WHERE source = $1 AND agent = $2`, source, agent).Scan(&seq)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	before := seq
	for _, n := range batch {
		if n.Seq <= seq {
			continue
		}
		if missing := n.Seq - seq - 1; missing > 0 {
			if err := tx.Append(ctx, relay.Gap(source, missing, tx.db.Now())); err != nil {
				return 0, err
			}
		}
		if err := tx.Append(ctx, n.Event); err != nil {
			return 0, err
		}
		seq = n.Seq
	}
	if seq == before && len(batch) > 0 { // it was written before
		return seq, nil
	}
	_, err = tx.Exec(ctx, `INSERT INTO relay_agents (source, agent, seq, heard) VALUES ($1, $2, $3, $4)
		ON CONFLICT (source, agent) DO UPDATE SET seq = excluded.seq, heard = excluded.heard`, source, agent, seq,
		micros(tx.db.Now()))
	if err != nil || before != 0 {
		return seq, err
	}
	_, err = tx.Exec(ctx, `DELETE FROM relay_agents WHERE source = $1 AND agent NOT IN
		(SELECT agent FROM relay_agents WHERE source = $1 ORDER BY heard DESC, agent LIMIT $2)`, source, maxAgents)
	return seq, err
}

// Late returns how many sources of events there are, and how many of them were heard of
// last before a moment. A source that was not heard of for 30 days is not counted.
func (s Relay) Late(ctx context.Context, before time.Time) (all, late int64, err error) {
	err = s.Read(ctx, func(ctx context.Context, tx *Tx) error {
		return tx.QueryRow(ctx, `SELECT COUNT(*), COALESCE(SUM(CASE WHEN heard < $1 THEN 1 ELSE 0 END), 0)
			FROM (SELECT source, MAX(heard) AS heard FROM relay_agents GROUP BY source) AS newest
			WHERE heard >= $2`, micros(before), micros(s.Now().Add(-agentForgotten))).Scan(&all, &late)
	})
	return all, late, err
}

// agentForgotten is how long a source that is not heard of is still counted.
const agentForgotten = 30 * 24 * time.Hour
