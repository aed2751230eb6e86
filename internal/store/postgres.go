package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/postern-project/postern"
	"github.com/pressly/goose/v3"
)

// postgres is the backend of a PostgreSQL database, which servers share.
type postgres struct {
	url string
}

// The advisory locks. They belong to one database, not to the whole server.
const (
	writeLock   = 0x706f7374_00000001 // of the one writer, until its commit
	migrateLock = 0x706f7374_00000002
)

// session is what every connection sets. A commit is flushed before it is
// answered, whatever the server's default; and a server of ours that dies with
// the write lock, or is cut off, does not keep the others out for long.
const session = `
	SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
	SET idle_in_transaction_session_timeout = '10s';
	SET tcp_keepalives_idle = 10;
	SET tcp_keepalives_interval = 3;
	SET tcp_keepalives_count = 3`

func (p *postgres) open(ctx context.Context) (write, read *sql.DB, err error) {
	config, err := pgx.ParseConfig(p.url)
	if err != nil {
		return nil, nil, postern.Errorf(postern.Invalid,
			"the database URL is not right") // its text may hold a password
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "postern"
	}
	setUp := stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.PgConn().Exec(ctx, session).ReadAll()
		return err
	})
	write, read = stdlib.OpenDB(*config, setUp), stdlib.OpenDB(*config, setUp)
	write.SetMaxOpenConns(2) // the writer's, and one for migrations
	read.SetMaxOpenConns(readConns)
	read.SetMaxIdleConns(readConns)
	read.SetConnMaxIdleTime(5 * time.Minute)
	err = checkLock(ctx, write)
	if perr, ok := errors.AsType[*pgconn.PgError](err); ok && perr.Code == "42704" { // undefined object
		err = postern.Errorf(postern.Invalid, "the database's connection string: %s", perr.Message).
			WithHint("each keyword is one of libpq's, or a setting of PostgreSQL")
	}
	return write, read, err
}

func (p *postgres) migrate(ctx context.Context, db *sql.DB) error {
	return migrate(ctx, goose.DialectPostgres, db, func() (func(), error) {
		conn, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(migrateLock)); err != nil {
			conn.Close()
			return nil, err
		}
		return func() {
			_, _ = conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(migrateLock))
			conn.Close()
		}, nil
	})
}

// begin starts a transaction and takes the write lock. Every statement after it
// sees what the last holder committed.
func (p *postgres) begin(_ context.Context, _ runner, send func(before ...statement) error) error {
	return send(statement{query: "BEGIN ISOLATION LEVEL READ COMMITTED"},
		statement{query: "SELECT pg_advisory_xact_lock($1)", args: []any{int64(writeLock)}})
}

// send sends all statements at once (libpq's pipeline mode). The server runs none behind
// one that fails, the commit among them.
func (p *postgres) send(ctx context.Context, conn *sql.Conn, _ runner, list []statement) error {
	return conn.Raw(func(c any) error {
		var b pgx.Batch
		for _, s := range list {
			b.Queue(s.query, s.args...)
		}
		results := c.(*stdlib.Conn).Conn().SendBatch(ctx, &b)
		for i, s := range list {
			if err := s.readFrom(results); err != nil {
				_ = results.Close() // says the same
				if _, ok := errors.AsType[*pgconn.PgError](err); ok {
					return &statementError{i, err}
				}
				return err // it is not known how far the server came
			}
		}
		return results.Close()
	})
}

// readFrom reads what the statement found.
func (s statement) readFrom(results pgx.BatchResults) error {
	if s.read == nil {
		tag, err := results.Exec()
		if err == nil && s.query == "COMMIT" && tag.String() != "COMMIT" {
			return errRolledBack
		}
		return err
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	if err := s.read(rows); err != nil {
		return err
	}
	return rows.Err()
}

// errRolledBack is what a commit is that a statement before it has made impossible.
var errRolledBack = errors.New("the transaction was rolled back instead")

func (p *postgres) classify(err error) fault {
	var perr *pgconn.PgError
	if !errors.As(err, &perr) {
		var cerr *pgconn.ConnectError
		if errors.As(err, &cerr) || pgconn.SafeToRetry(err) {
			return faultConn
		}
		return faultNone
	}
	switch perr.Code {
	case "40001", "40P01": // serialization failure, deadlock
		return faultRace
	case "57P01", "57P02", "57P03", "25P03", "57P05": // shutting down, crashed, starting, idle for too long
		return faultConn
	case "55P03": // lock not available
		return faultBusy
	case "25006", "42501": // read-only, insufficient privilege
		return faultUnavailable
	}
	switch perr.Code[:2] {
	case "08": // connection
		return faultConn
	case "53", "58", "XX", "28", "3D": // resources, system, damaged; login refused; no such database
		return faultUnavailable
	}
	return faultNone
}

func (p *postgres) full(err error) bool {
	var perr *pgconn.PgError
	return errors.As(err, &perr) && perr.Code == "53100"
}

// damaged reports whether PostgreSQL found its files to be so (class XX, internal error).
func (p *postgres) damaged(err error) bool {
	var perr *pgconn.PgError
	return errors.As(err, &perr) && (perr.Code == "XX001" || perr.Code == "XX002")
}

func (p *postgres) bytes(ctx context.Context, read *sql.DB) (n int64, err error) {
	err = read.QueryRowContext(ctx, `SELECT pg_database_size(current_database())`).Scan(&n)
	return n, err
}

func (p *postgres) conflicts(err error) bool {
	var perr *pgconn.PgError
	return errors.As(err, &perr) && len(perr.Code) == 5 && perr.Code[:2] == "23"
}

func (p *postgres) cacheStatements() bool { return false }

func (p *postgres) bytewise() string { return ` COLLATE "C"` }
