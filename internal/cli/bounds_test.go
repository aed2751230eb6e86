package cli

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The bounds of the command line: it is flags, a call, and printing. Logic belongs
// into a package.
const (
	mostLines    = 5000 // of all files but tests
	mostFunction = 40   // lines of a function without its help texts
)

// TestTheCommandLineIsSmall counts the lines of the command line and of each of its
// functions. Lines within a help text do not count to a function.
func TestTheCommandLineIsSmall(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines += bytes.Count(text, []byte("\n"))
		for name, n := range functionLines(t, file, text) {
			if n > mostFunction {
				t.Errorf("%s: %s has %d lines, more than %d", file, name, n, mostFunction)
			}
		}
	}
	if lines > mostLines {
		t.Errorf("the command line has %d lines, more than %d", lines, mostLines)
	}
}

// functionLines returns how long the functions of a file are.
func functionLines(t *testing.T, file string, text []byte) map[string]int {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	span := func(n ast.Node) int { return fset.Position(n.End()).Line - fset.Position(n.Pos()).Line }
	long := map[string]int{}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		n := span(fn) + 1
		ast.Inspect(fn, func(n2 ast.Node) bool {
			if lit, ok := n2.(*ast.BasicLit); ok {
				n -= span(lit)
			}
			return true
		})
		long[fn.Name.Name] = n
	}
	return long
}

func TestLongFunctionsAreSeen(t *testing.T) {
	text := "package p\n\nfunc f() {\n\tg(`a\nb\nc`)\n}\n\nfunc g(string) {\n\n\n}\n"
	if got := functionLines(t, "p.go", []byte(text)); got["f"] != 3 || got["g"] != 4 {
		t.Errorf("got %v", got)
	}
}
