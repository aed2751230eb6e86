// Package store keeps Postern's state in SQLite or PostgreSQL, with one
// hand-written SQL for both.
//
// A file has the tables of one package: person.go, ca.go, otp.go and so on, with the
// methods of the interface that the package declares.
//
// SQL is written with $1 placeholders; columns are TEXT, BIGINT and BYTEA; a
// time is a BIGINT of microseconds since 1970 (see micros and fromMicros; 0 is
// no time), a boolean a BIGINT of 0 or 1. Writes are serialised over all
// servers that share the database, so that a function given to [DB.Write] may
// read, decide and write without another write in between.
package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Config says which database to open and how.
type Config struct {
	// URL is a connection string of PostgreSQL, see [IsPostgres], or the path
	// of a SQLite file, which is made if need be. Empty means "postern.db" in
	// the working directory.
	URL string
	// Key encrypts the keys at rest. It must not be zero.
	Key [32]byte
	// OldKeys are former Keys, under which values may still be sealed until
	// [DB.Rewrap] has run.
	OldKeys [][32]byte
	// Now returns the time; nil means the system's clock.
	Now func() time.Time
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Key == [32]byte{} {
		return postern.Errorf(postern.Invalid, "the database needs a key-encrypting key")
	}
	return checkURL(c.URL)
}

// DB is an open store. It is safe for concurrent use, and several processes may
// open the same database.
type DB struct {
	backend backend
	write   *sql.DB // one connection, the writer's
	read    *sql.DB
	rows    sync.Map // query to *sql.Stmt on read: see row
	seals   atomic.Pointer[sealer]
	refused atomic.Pointer[error] // why nothing is used up that is valid once; nil: it is
	marked  atomic.Pointer[func(c timeline.Checkpoint, signed string) error]
	reached atomic.Int64 // the longest timeline that was committed here
	now     func() time.Time
	otp     *OTP

	observer atomic.Pointer[func(Batch)]
	files    timeline.Files // what was moved out of the timeline; nil: it is not here

	queue  chan *request
	closed chan struct{} // closed when Close begins
	close  sync.Once
	done   chan struct{} // closed when the writer has gone

	keys   atomic.Pointer[logKeys]
	tree   *timeline.Tree // the writer's: the tree as of the checkpoint below
	signed string         // the writer's: the checkpoint that tree belongs to
}

// readConns is how many reads run at the same time.
const readConns = 16

// backend is what differs between the two databases.
type backend interface {
	open(ctx context.Context) (write, read *sql.DB, err error)
	migrate(ctx context.Context, db *sql.DB) error
	begin(ctx context.Context, c runner, send func(before ...statement) error) error // take the one write lock there is
	send(ctx context.Context, conn *sql.Conn, run runner, list []statement) error    // in order, up to one that fails
	classify(err error) fault
	full(err error) bool      // the disk is
	damaged(err error) bool   // the database is
	conflicts(err error) bool // a unique key or a reference was violated
	cacheStatements() bool    // whether the driver does not
	bytewise() string         // orders a column of text by its bytes
	bytes(ctx context.Context, read *sql.DB) (int64, error)
}

// Open opens the database and brings its schema up to date, which is safe while
// other servers do the same. It fails with [postern.Unavailable] when the
// database is unavailable, with [postern.Conflict] when a newer Postern has
// changed its schema, and with [postern.Invalid] when the database's locks do not
// exclude other servers.
func Open(ctx context.Context, c Config) (*DB, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	seals, err := newSealer(c.Key, c.OldKeys)
	if err != nil {
		return nil, err
	}
	db := &DB{
		now:    c.Now,
		queue:  make(chan *request),
		closed: make(chan struct{}),
		done:   make(chan struct{}),
	}
	db.otp = newOTP(db)
	db.seals.Store(&seals)
	if db.now == nil {
		db.now = time.Now
	}
	db.backend = backendFor(c.URL)
	if db.write, db.read, err = db.backend.open(ctx); err != nil {
		return nil, db.wrap(err, "open the database")
	}
	if err := db.start(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

func backendFor(url string) backend {
	if IsPostgres(url) {
		return &postgres{url: url}
	}
	return &sqlite{path: url}
}

// Migrate brings a database's schema up to date, as [Open] does, and leaves it
// without a timeline: one that is copied gets a timeline of its own when it is opened.
func Migrate(ctx context.Context, url string) error {
	b := backendFor(url)
	write, read, err := b.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(b.migrate(ctx, write), read.Close(), write.Close())
}

func (db *DB) start(ctx context.Context) error {
	if err := db.backend.migrate(ctx, db.write); err != nil {
		close(db.done) // no writer has started
		return db.wrap(err, "bring the database's schema up to date")
	}
	go db.writer()
	return db.openLog(ctx)
}

// Shared reports whether other servers may use the same database.
func (db *DB) Shared() bool {
	_, shared := db.backend.(*postgres)
	return shared
}

// Close waits for the writes under way and closes the database. Writes that
// come later fail.
func (db *DB) Close() error {
	var err error
	db.close.Do(func() {
		close(db.closed)
		<-db.done
		err = db.write.Close()
		if rerr := db.read.Close(); err == nil {
			err = rerr
		}
	})
	return err
}

// SetKeys makes key the one that seals from now on; the old keys still open. It
// is safe while the database is in use.
func (db *DB) SetKeys(key [32]byte, old ...[32]byte) error {
	seals, err := newSealer(key, old)
	if err != nil {
		return err
	}
	db.seals.Store(&seals)
	return nil
}

// Now returns the time, in UTC and whole microseconds, as it is kept.
func (db *DB) Now() time.Time { return db.now().UTC().Truncate(time.Microsecond) }

// micros returns a time as a column holds it.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// fromMicros returns the time that a column holds.
func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// flag returns a boolean as a column holds it.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
