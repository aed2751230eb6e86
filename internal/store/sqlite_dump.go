package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern"
)

const maxDump = 64 << 20 // bytes of SQL text

// DumpSQLite reads another program's SQLite database and returns the named
// tables that it has as SQL text, CREATE TABLE and INSERT. The database is not
// changed; a transaction that its program left open is not read.
func DumpSQLite(ctx context.Context, path string, tables ...string) ([]byte, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "%w", err)
	}
	u := url.URL{Scheme: "file", Path: abs, RawQuery: "mode=ro&_pragma=trusted_schema(off)&_pragma=busy_timeout(5000)"}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "open the SQLite database %s: %w", path, err)
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, dumpError(path, err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	var text bytes.Buffer
	for _, table := range tables {
		if err := dumpTable(ctx, tx, &text, table); err != nil {
			return nil, dumpError(path, err)
		}
	}
	return text.Bytes(), nil
}

func dumpError(path string, err error) error {
	return postern.Errorf(postern.Invalid, "read the SQLite database %s: %w", path, err).
		WithHint("stop the program that it belongs to, or give the output of: sqlite3 %s .dump", path)
}

// dumpTable writes a table, if there is one of that name. Views and virtual
// tables are left out: they may be without end.
func dumpTable(ctx context.Context, tx *sql.Tx, text *bytes.Buffer, table string) error {
	var n int
	err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_schema
		WHERE type = 'table' AND name = $1 AND sql LIKE 'CREATE TABLE%'`, table).Scan(&n)
	if err != nil || n == 0 {
		return err
	}
	rows, err := tx.QueryContext(ctx, `SELECT * FROM "`+table+`"`)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = quoteSQL(c)
	}
	fmt.Fprintf(text, "CREATE TABLE %s (%s);\n", table, strings.Join(quoted, ", "))
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		for i, v := range values {
			quoted[i] = "NULL"
			if v.Valid {
				quoted[i] = quoteSQL(v.String)
			}
		}
		fmt.Fprintf(text, "INSERT INTO %s VALUES (%s);\n", table, strings.Join(quoted, ", "))
		if text.Len() > maxDump {
			return fmt.Errorf("it holds more than %d bytes", maxDump)
		}
	}
	return rows.Err()
}

// quoteSQL quotes a text for a reader that takes a backslash for an escape.
func quoteSQL(s string) string {
	return "'" + strings.NewReplacer("'", "''", `\`, `\\`, "\n", " ").Replace(s) + "'"
}
