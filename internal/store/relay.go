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

// Agent is a source of events, and when something of it was received last.
type Agent struct {
	Source string
	Heard  time.Time
}

// Agents returns the sources of events that were heard of in the last 30 days.
func (s Relay) Agents(ctx context.Context) ([]Agent, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (list []Agent, err error) {
		rows, err := tx.Query(ctx, `SELECT source, MAX(heard) FROM relay_agents GROUP BY source
			HAVING MAX(heard) >= $1 ORDER BY source`, micros(s.Now().Add(-agentForgotten)))
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var a Agent
			var heard int64
			if err := rows.Scan(&a.Source, &heard); err != nil {
				return nil, err
			}
			a.Heard = fromMicros(heard)
			list = append(list, a)
		}
		return list, rows.Err()
	})
}

// agentForgotten is how long a source that is not heard of is still counted.
const agentForgotten = 30 * 24 * time.Hour
