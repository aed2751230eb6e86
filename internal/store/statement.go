package store

import (
	"context"
	"database/sql"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// statement is one to be run. What it finds is read by read, if that is not nil, which
// may be called again when the transaction is run again.
type statement struct {
	query string
	args  []any
	read  func(found) error
}

// found are the rows of a statement: those of database/sql or of pgx.
type found interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
}

// statementError says which of the statements that were sent failed, as the database
// says: those behind it were not run.
type statementError struct {
	n   int
	err error
}

func (e *statementError) Error() string { return e.err.Error() }
func (e *statementError) Unwrap() error { return e.err }

// later runs a statement whose result is not needed before the next other statement of
// the transaction, or its commit: with these, in one round trip. It must not fail but by
// an error of the database, since that undoes all that shares the transaction.
func (tx *Tx) later(query string, args ...any) {
	tx.queued = append(tx.queued, statement{query: query, args: args})
}

// flush runs the statements that are left for later.
func (tx *Tx) flush(ctx context.Context) error {
	if len(tx.queued) == 0 {
		return tx.lost
	}
	tx.lost = tx.send(tx.context(ctx), tx.takeQueued()...)
	return tx.lost
}

func (tx *Tx) takeQueued() (list []statement) {
	list, tx.queued = tx.queued, nil
	return list
}

// mostRows is how many rows one statement inserts, a power of two.
const mostRows = 64

// insertLater inserts rows later, many by one statement. insert ends before the values.
func (tx *Tx) insertLater(insert string, rows [][]any) {
	for len(rows) > 0 {
		n := min(mostRows, 1<<(bits.Len(uint(len(rows)))-1)) // few lengths, so that statements can be kept
		tx.later(valuesOf(insert, n, len(rows[0])), slices.Concat(rows[:n]...)...)
		rows = rows[n:]
	}
}

// valuesOf returns the statement that inserts n rows of so many columns.
func valuesOf(insert string, n, columns int) string {
	type key struct {
		insert string
		n      int
	}
	if text, ok := insertTexts.Load(key{insert, n}); ok {
		return text.(string)
	}
	rows := make([]string, n)
	for i := range rows {
		marks := make([]string, columns)
		for j := range marks {
			marks[j] = fmt.Sprintf("$%d", i*columns+j+1)
		}
		rows[i] = "(" + strings.Join(marks, ", ") + ")"
	}
	text := insert + " VALUES " + strings.Join(rows, ", ")
	insertTexts.Store(key{insert, n}, text)
	return text
}

// insertTexts are the statements that valuesOf has made.
var insertTexts sync.Map

// sendEach runs statements one after the other.
func sendEach(ctx context.Context, run runner, list []statement) error {
	for i, s := range list {
		if err := s.run(ctx, run); err != nil {
			return &statementError{i, err}
		}
	}
	return nil
}

func (s statement) run(ctx context.Context, run runner) error {
	if s.read == nil {
		_, err := run.ExecContext(ctx, s.query, s.args...)
		return err
	}
	rows, err := run.QueryContext(ctx, s.query, s.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if err := s.read(rows); err != nil {
		return err
	}
	return rows.Err()
}

// maxStatements bounds the statements that are kept prepared.
const maxStatements = 256

// statements is a connection that prepares each statement once. What it runs is
// not interrupted: the driver would start a goroutine a statement to watch for
// the end of a context.
type statements struct {
	conn *sql.Conn
	kept map[string]*sql.Stmt
}

func (s *statements) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt := s.kept[query]; stmt != nil {
		return stmt, nil
	}
	if len(s.kept) >= maxStatements {
		s.close()
	}
	stmt, err := s.conn.PrepareContext(ctx, unnamed(query))
	if err == nil {
		s.kept[query] = stmt
	}
	return stmt, err
}

// manyParameters is from how many on a statement's parameters are better without names.
const manyParameters = 16

// unnamed returns a query with ? for its parameters if these are many, in their order, and each
// there once. SQLite looks for each name in a list of all of them: for 500, that takes
// longer than to insert what they stand for.
func unnamed(query string) string {
	parts := strings.Split(query, "$")
	if len(parts) <= manyParameters {
		return query
	}
	for i, part := range parts[1:] {
		rest, ok := strings.CutPrefix(part, strconv.Itoa(i+1))
		if !ok || rest != "" && '0' <= rest[0] && rest[0] <= '9' {
			return query
		}
		parts[i+1] = rest
	}
	return strings.Join(parts, "?")
}

func (s *statements) close() {
	for query, stmt := range s.kept {
		_ = stmt.Close()
		delete(s.kept, query)
	}
}

func (s *statements) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	stmt, err := s.prepare(ctx, query) //nolint:sqlclosecheck // kept, and closed by close
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(context.WithoutCancel(ctx), args...)
}

func (s *statements) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := s.prepare(ctx, query) //nolint:sqlclosecheck // kept, and closed by close
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(context.WithoutCancel(ctx), args...)
}

func (s *statements) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	stmt, err := s.prepare(ctx, query) //nolint:sqlclosecheck // kept, and closed by close
	if err != nil {
		return s.conn.QueryRowContext(ctx, query, args...) // says why itself
	}
	return stmt.QueryRowContext(context.WithoutCancel(ctx), args...)
}
