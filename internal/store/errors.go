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

// fault classifies an error of the database.
type fault int

const (
	faultNone        fault = iota // an error of the statement or of the caller
	faultRace                     // a conflict with another transaction: run it again
	faultBusy                     // another process has the lock for too long
	faultConn                     // the connection is lost: run it again on another
	faultUnavailable              // the database is unavailable, full, read-only or damaged
)

// faultOf classifies what both databases have in common, or asks the backend.
func (db *DB) faultOf(err error) fault {
	var netErr net.Error
	switch {
	case err == nil:
		return faultNone
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		return faultConn
	case errors.As(err, &netErr) && !errors.Is(err, context.DeadlineExceeded):
		return faultConn
	}
	return db.backend.classify(err)
}

// wrap classifies an error for the caller: Unavailable when the database cannot
// serve now, Conflict when a unique key or a reference is violated. An
// error that is classified already stays as it is.
func (db *DB) wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*postern.Error](err); ok {
		return err
	}
	select {
	case <-db.closed: // database/sql says so by an error without a name
		return postern.Errorf(postern.Unavailable, "%s: %w", doing, err)
	default:
	}
	switch {
	case errors.Is(err, context.Canceled):
		return postern.Errorf(postern.Unavailable, "%s: %w", doing, err)
	case errors.Is(err, context.DeadlineExceeded):
		return postern.Errorf(postern.Unavailable, "%s: %w", doing, outage{err})
	case db.backend.full(err):
		return postern.Errorf(postern.Unavailable, "%s: the disk is full: %w", doing, outage{err}).
			WithHint("free space on the database's disk")
	case db.backend.damaged(err):
		return postern.Errorf(postern.Unavailable, "%s: the database is damaged: %w", doing, outage{err}).
			WithHint("restore the database from a backup")
	case db.faultOf(err) != faultNone:
		return postern.Errorf(postern.Unavailable, "%s: %w", doing, outage{err}).
			WithHint("check that the database runs, has free space and may be written to")
	}
	if db.backend.conflicts(err) {
		return postern.Errorf(postern.Conflict, "%s: %w", doing, err)
	}
	return err
}
