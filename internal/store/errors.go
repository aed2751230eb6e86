package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/postern-project/postern"
)

// fault says what an error of the database means for whoever met it.
type fault int

const (
	faultNone fault = iota // the statement's or the caller's own
	faultRace              // lost against another transaction: run it again
	faultBusy              // another process held the lock for too long
	faultConn              // the connection is gone: run it again on another
	faultAway              // the database is away, full, read-only or damaged
)

// faultOf classifies what both databases have in common, or asks the backend.
func (db *DB) faultOf(err error) fault {
	var netErr net.Error
	switch {
	case err == nil:
		return faultNone
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return faultConn
	case errors.As(err, &netErr) && !errors.Is(err, context.DeadlineExceeded):
		return faultConn
	}
	return db.backend.classify(err)
}

// wrap classifies an error for the caller: Unavailable when the database cannot
// serve now, Conflict when a unique key or a reference stands against it. An
// error that is classified already stays as it is.
func (db *DB) wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*postern.Error](err); ok {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return postern.Errorf(postern.Unavailable, "%s: %w", doing, err)
	}
	if db.backend.full(err) {
		return postern.Errorf(postern.Unavailable, "%s: the disk is full: %w", doing, err).
			WithHint("make room on the database's disk")
	}
	if db.faultOf(err) != faultNone {
		return postern.Errorf(postern.Unavailable, "%s: %w", doing, err).
			WithHint("the database cannot be used now; see that it runs, has room and may be written")
	}
	if db.backend.conflicts(err) {
		return postern.Errorf(postern.Conflict, "%s: %w", doing, err)
	}
	return err
}
