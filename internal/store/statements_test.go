package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestEveryStatementIsForBothDatabases prepares each constant statement of this
// package on both, which checks names, types and grammar.
func TestEveryStatementIsForBothDatabases(t *testing.T) {
	statements := statementsOf(t)
	if len(statements) < 40 {
		t.Fatalf("only %d statements were found", len(statements))
	}
	path := filepath.Join(t.TempDir(), "postern.db")
	url := posterntest.StartPostgreSQL(t).Database()
	for _, c := range []struct{ driver, url string }{{"sqlite", path}, {"pgx", url}} {
		must(t, storetest.OpenConfig(t, store.Config{URL: c.url}).Close())
		db, err := sql.Open(c.driver, c.url)
		must(t, err)
		defer db.Close()
		for where, text := range statements {
			stmt, err := db.PrepareContext(context.Background(), text)
			if err != nil {
				t.Errorf("%s: %s: %v\n%s", where, c.driver, err, text)
				continue
			}
			stmt.Close()
		}
	}
}

// statementsOf returns the statements in the package's source, by where they
// stand: the strings, joined with constants, that begin with a verb of SQL.
func statementsOf(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	must(t, err)
	fset := token.NewFileSet()
	var parsed []*ast.File
	constants := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "sqlite.go" || file == "postgres.go" {
			continue // the last two speak to their own database alone
		}
		f, err := parser.ParseFile(fset, file, nil, 0)
		must(t, err)
		parsed = append(parsed, f)
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok {
				for i, name := range v.Names {
					if i < len(v.Values) {
						if text, ok := textOf(v.Values[i], constants); ok {
							constants[name.Name] = text
						}
					}
				}
			}
			return true
		})
	}
	statements := map[string]string{}
	for _, f := range parsed {
		ast.Inspect(f, func(n ast.Node) bool {
			text, ok := textOf(queryIn(n), constants)
			verb, _, _ := strings.Cut(strings.TrimSpace(text), " ")
			if ok && strings.Contains("SELECT INSERT UPDATE DELETE WITH", verb) && verb != "" {
				p := fset.Position(n.Pos())
				statements[fmt.Sprintf("%s:%d", p.Filename, p.Line)] = text
			}
			return true
		})
	}
	return statements
}

// queryIn returns the expression of a statement in a call that runs one, or in the
// description of one to be run.
func queryIn(n ast.Node) ast.Expr {
	switch n := n.(type) {
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && key.Name == "query" {
			return n.Value
		}
	case *ast.CallExpr:
		fun, ok := n.Fun.(*ast.SelectorExpr)
		switch {
		case !ok:
		case fun.Sel.Name == "later" && len(n.Args) > 1:
			return n.Args[0]
		case slices.Contains([]string{"Exec", "Query", "QueryRow", "row"}, fun.Sel.Name) && len(n.Args) > 1:
			return n.Args[1]
		}
	}
	return nil
}

// textOf returns the text of a constant expression.
func textOf(e ast.Expr, constants map[string]string) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.Ident:
		text, ok := constants[e.Name]
		return text, ok
	case *ast.ParenExpr:
		return textOf(e.X, constants)
	case *ast.BinaryExpr:
		left, ok1 := textOf(e.X, constants)
		right, ok2 := textOf(e.Y, constants)
		return left + right, ok1 && ok2 && e.Op == token.ADD
	}
	return "", false
}
