package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/postern-project/postern/timeline"
)

// A row of log_tiles has one tile, or several of its level that follow each other. SQLite
// has room for one on each of its pages, and leaves the other half empty: the tiles of the
// leaves are joined, those of a block of entries in one row.
const (
	tileBytes = 32 << timeline.TileHeight
	joined    = blockWidth >> timeline.TileHeight
)

// putTiles keeps tiles that are finished.
func (tx *Tx) putTiles(ctx context.Context, tiles []timeline.Tile) error {
	for _, t := range tiles {
		tx.later(`INSERT INTO log_tiles (level, n, data) VALUES ($1, $2, $3)`, t.Level, t.N, t.Data)
		if tx.db.Shared() || t.Level > 0 || t.N%joined != joined-1 {
			continue // PostgreSQL keeps long values elsewhere, and close together
		}
		if err := tx.joinTiles(ctx, t.N-t.N%joined); err != nil {
			return err
		}
	}
	return nil
}

// joinTiles puts the leaves' tiles from one on into its row, if all are there.
func (tx *Tx) joinTiles(ctx context.Context, first int64) error {
	rows, err := tx.Query(ctx, `SELECT data FROM log_tiles WHERE level = 0 AND n >= $1 AND n < $2 ORDER BY n`,
		first, first+joined)
	if err != nil {
		return err
	}
	defer rows.Close()
	var all []byte
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return err
		}
		all = append(all, data...)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(all) != joined*tileBytes {
		return err
	}
	tx.later(`UPDATE log_tiles SET data = $2 WHERE level = 0 AND n = $1`, first, all)
	tx.later(`DELETE FROM log_tiles WHERE level = 0 AND n > $1 AND n < $2`, first, first+joined)
	return nil
}

func (a archive) Tile(ctx context.Context, level int, n int64) ([]byte, error) {
	var first int64
	var data []byte
	err := a.tx.QueryRow(ctx, `SELECT n, data FROM log_tiles WHERE level = $1 AND n <= $2
		ORDER BY n DESC LIMIT 1`, level, n).Scan(&first, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil || int64(len(data)/tileBytes) <= n-first {
		return nil, err
	}
	return data[(n-first)*tileBytes:][:tileBytes], nil
}
