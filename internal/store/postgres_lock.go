package store

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/postern-project/postern"
)

// checkLock fails with [postern.Invalid] unless the write lock excludes all other
// sessions until the end of its transaction. It does not where the database takes
// advisory locks without locking (CockroachDB) or each of its nodes for itself
// (YugabyteDB). And a pooler that gives each transaction another session (PgBouncer's
// pool_mode = transaction) takes from this one what it has set, so that a commit may
// not be durable, and the lock that migrations hold. Both connections are of their own.
func checkLock(ctx context.Context, db *sql.DB) error {
	a, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := checkProduct(ctx, a); err != nil {
		return err
	}
	if err := checkSessions(ctx, a, b); err != nil {
		return err
	}
	return tryLock(ctx, a, b)
}

// simple makes pgx ask without a prepared statement, which a pooler may not know.
const simple = pgx.QueryExecModeSimpleProtocol

func checkProduct(ctx context.Context, c *sql.Conn) error {
	var version string
	if err := c.QueryRowContext(ctx, "SELECT version()", simple).Scan(&version); err != nil {
		return err
	}
	for mark, product := range map[string]string{"CockroachDB": "CockroachDB", "-YB-": "YugabyteDB"} {
		if strings.Contains(version, mark) {
			return lockless("the database is %s, whose advisory locks do not exclude other sessions", product)
		}
	}
	return nil
}

// checkSessions fails if two connections get their sessions from one pool.
func checkSessions(ctx context.Context, a, b *sql.Conn) error {
	var before, other, after int64
	const session = "SELECT pg_backend_pid()"
	if err := a.QueryRowContext(ctx, session, simple).Scan(&before); err != nil {
		return err
	}
	if _, err := b.ExecContext(ctx, "BEGIN", simple); err != nil {
		if _, ok := errors.AsType[*pgconn.PgError](err); ok {
			return lockless("the database is behind a pooler that refuses transactions: %w", err)
		}
		return err
	}
	defer rollBack(ctx, b)
	if err := b.QueryRowContext(ctx, session, simple).Scan(&other); err != nil {
		return err
	}
	if err := a.QueryRowContext(ctx, session, simple).Scan(&after); err != nil {
		return err
	}
	if before != after || before == other {
		return lockless("the database is behind a pooler that gives each transaction another session")
	}
	return nil
}

// tryLock takes a lock on one connection, and fails if the other gets it, too.
func tryLock(ctx context.Context, a, b *sql.Conn) error {
	key := rand.Int64()
	if _, err := a.ExecContext(ctx, "BEGIN", simple); err != nil {
		return err
	}
	defer rollBack(ctx, a)
	if _, err := a.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", simple, key); err != nil {
		return err
	}
	var got bool
	if err := b.QueryRowContext(ctx, "SELECT pg_try_advisory_xact_lock($1)", simple, key).Scan(&got); err != nil {
		return err
	}
	if got {
		return lockless("the database's advisory locks do not exclude other sessions")
	}
	return nil
}

func lockless(format string, args ...any) error {
	return postern.Errorf(postern.Invalid, format, args...).
		WithHint("use PostgreSQL itself, directly or through a pooler that keeps a session for each connection " +
			"(PgBouncer: pool_mode = session)")
}

// rollBack ends a transaction that [checkSessions] or [tryLock] began. One
// that cannot be ended ends with its connection.
func rollBack(ctx context.Context, c *sql.Conn) {
	_, _ = c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK", simple)
}
