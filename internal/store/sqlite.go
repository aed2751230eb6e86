package store

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/postern-project/postern/internal/system"
	"github.com/pressly/goose/v3"
	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// sqlite is the backend of one file. Several processes may share it.
type sqlite struct {
	path string
}

// busyTimeout is how long a process waits for another one's write.
const busyTimeout = 10 * time.Second

// open makes the file, readable by its owner only, and opens it. Its journal
// files take their mode from it.
func (s *sqlite) open(ctx context.Context) (write, read *sql.DB, err error) {
	if s.path == "" {
		s.path = "postern.db"
	}
	// As SQLite does where its authors' script builds it: a commit need not wait
	// until the journal files' times are on disk.
	if _, err := driver.Fdatasync(true); err != nil && !errors.Is(err, driver.ErrFdatasyncUnavailable) {
		return nil, nil, err
	}
	if s.path, err = filepath.Abs(s.path); err != nil {
		return nil, nil, err
	}
	if err := s.create(); err != nil {
		return nil, nil, err
	}
	// The writer changes pages all over the indices: with SQLite's 2 MB most are written to
	// the journal and read again within one transaction. What undoes one statement stays in
	// memory, too.
	write, err = sql.Open("sqlite", s.dsn("synchronous(FULL)", "foreign_keys(1)", "journal_size_limit(67108864)",
		"cache_size(-32768)", "temp_store(MEMORY)"))
	if err != nil {
		return nil, nil, err
	}
	if read, err = sql.Open("sqlite", s.dsn("query_only(1)")); err != nil {
		return nil, nil, err
	}
	write.SetMaxOpenConns(1)
	read.SetMaxOpenConns(readConns)
	read.SetMaxIdleConns(readConns)
	return write, read, s.ping(ctx, write)
}

// ping makes the first connection. Two that switch a new file to WAL at once
// get SQLITE_BUSY at once, without SQLite's own waiting.
func (s *sqlite) ping(ctx context.Context, db *sql.DB) error {
	deadline := time.Now().Add(busyTimeout)
	for {
		err := db.PingContext(ctx)
		if err == nil || s.classify(err) != faultBusy || time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, time.Duration(5+rand.IntN(20))*time.Millisecond); err != nil {
			return err
		}
	}
}

// create makes the file if there is none. One that root makes belongs to the
// owner of its directory: the user that the server runs as.
func (s *sqlite) create() error {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return s.private()
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	uid, gid, ok := system.Owner(dir)
	if !ok {
		return nil
	}
	return f.Chown(uid, gid)
}

// private removes other users' permissions from a file.
func (s *sqlite) private() error {
	info, err := os.Stat(s.path)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(s.path, info.Mode().Perm()&0o700)
}

func (s *sqlite) dsn(pragmas ...string) string {
	q := url.Values{"_pragma": append([]string{"busy_timeout(5000)", "journal_mode(WAL)"}, pragmas...)}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: s.path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// migrate runs the migrations under a lock on the file's directory, for SQLite
// itself has none that spans several transactions.
func (s *sqlite) migrate(ctx context.Context, db *sql.DB) error {
	return migrate(ctx, goose.DialectSQLite3, db, func() (func(), error) {
		dir, err := os.Open(filepath.Dir(s.path))
		if err != nil {
			return nil, err
		}
		for {
			err := system.TryLock(dir)
			if err == nil {
				return func() { dir.Close() }, nil
			}
			if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
				dir.Close()
				return nil, err
			}
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				dir.Close()
				return nil, err
			}
		}
	})
}

// begin takes the file's write lock. SQLite's own waiting backs off up to a
// tenth of a second, in which a busy neighbour wins again and again: this waits
// in short steps.
func (s *sqlite) begin(ctx context.Context, c runner, send func(before ...statement) error) error {
	deadline := time.Now().Add(busyTimeout)
	if _, err := c.ExecContext(ctx, "PRAGMA busy_timeout = 0"); err != nil {
		return err
	}
	for {
		_, err := c.ExecContext(ctx, "BEGIN IMMEDIATE")
		if err == nil {
			return send()
		}
		if s.classify(err) != faultBusy || time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, time.Duration(200+rand.IntN(800))*time.Microsecond); err != nil {
			return err
		}
	}
}

// pause waits, or fails when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *sqlite) classify(err error) fault {
	var serr *driver.Error
	var perr *os.PathError
	switch {
	case errors.As(err, &perr):
		return faultUnavailable
	case !errors.As(err, &serr):
		return faultNone
	}
	switch serr.Code() & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return faultBusy
	case lib.SQLITE_FULL, lib.SQLITE_IOERR, lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN, lib.SQLITE_PERM,
		lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_NOMEM, lib.SQLITE_PROTOCOL, lib.SQLITE_NOLFS:
		return faultUnavailable
	}
	return faultNone
}

// full reports whether the disk is full. SQLite says so of a write; when it cannot
// extend its shared memory it only says that the disk fails.
func (s *sqlite) full(err error) bool {
	if errors.Is(err, syscall.ENOSPC) {
		return true
	}
	var serr *driver.Error
	if !errors.As(err, &serr) {
		return false
	}
	switch serr.Code() & 0xff {
	case lib.SQLITE_FULL:
		return true
	case lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN:
		const least = 64 << 10 // twice what is shared at first
		free, ok := system.Free(filepath.Dir(s.path))
		return ok && free < least
	}
	return false
}

// damaged reports whether the file is not a whole database.
func (s *sqlite) damaged(err error) bool {
	var serr *driver.Error
	if !errors.As(err, &serr) {
		return false
	}
	code := serr.Code() & 0xff
	return code == lib.SQLITE_CORRUPT || code == lib.SQLITE_NOTADB
}

// bytes returns the length of the file and of its journal.
func (s *sqlite) bytes(context.Context, *sql.DB) (n int64, err error) {
	for _, path := range []string{s.path, s.path + "-wal"} {
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) && path != s.path {
			continue
		}
		if err != nil {
			return 0, err
		}
		n += info.Size()
	}
	return n, nil
}

func (s *sqlite) conflicts(err error) bool {
	var serr *driver.Error
	return errors.As(err, &serr) && serr.Code()&0xff == lib.SQLITE_CONSTRAINT
}

func (s *sqlite) cacheStatements() bool { return true }

// bytewise is how SQLite orders by itself.
func (s *sqlite) bytewise() string { return "" }

func (s *sqlite) send(ctx context.Context, _ *sql.Conn, run runner, list []statement) error {
	return sendEach(ctx, run, list)
}
