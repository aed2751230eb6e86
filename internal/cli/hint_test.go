package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestHintsExist holds each hint that a command is put behind against the packages:
// one of them says it.
func TestHintsExist(t *testing.T) {
	said := packageTexts(t)
	for _, c := range commands {
		if !saidByOne(said, c.hint) {
			t.Errorf("no package says %q", c.hint)
		}
	}
	if saidByOne(said, "do what nothing says") {
		t.Error("this test cannot fail")
	}
}

// saidByOne reports whether a text begins with a hint, whatever role it is for.
func saidByOne(texts []string, hint string) bool {
	for _, text := range texts {
		for _, role := range []string{"server", "client"} {
			if strings.HasPrefix(strings.ReplaceAll(text, "%s", role), hint) {
				return true
			}
		}
	}
	return false
}

// TestPackagesNameNoCommands: a hint of a package says what to do; which command or flag
// does it, the command line says.
func TestPackagesNameNoCommands(t *testing.T) {
	flags, commands := map[string]bool{}, map[string]bool{}
	leaves(t, func(_ *testing.T, path []string, c *cobra.Command) {
		commands["postern "+path[0]] = true
		for _, set := range []*pflag.FlagSet{c.Flags(), c.InheritedFlags()} {
			set.VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = true })
		}
	})
	delete(flags, "--pid") // docker's, too
	named := func(hint string) bool {
		words := strings.FieldsFunc(hint, func(r rune) bool { return strings.ContainsRune(" ,;:()", r) })
		for i, w := range words {
			if flags[w] || i > 0 && commands[words[i-1]+" "+w] {
				return true
			}
		}
		return false
	}
	inPackages(t, func(n ast.Node) {
		for _, e := range adviceIn(n) {
			for _, text := range texts(e) {
				if named(text) {
					t.Errorf("a package says %q", text)
				}
			}
		}
	})
	for _, hint := range []string{"say it with: postern ca list", "give it by --state DIRECTORY"} {
		if !named(hint) {
			t.Errorf("%q names nothing", hint)
		}
	}
}

// adviceIn returns the expressions of a node that say what to do: an error's hint, or
// what fixes a finding.
func adviceIn(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "WithHint" {
			return n.Args
		}
	case *ast.KeyValueExpr:
		if k, ok := n.Key.(*ast.Ident); ok && k.Name == "Fix" {
			return []ast.Expr{n.Value}
		}
	case *ast.AssignStmt:
		if slices.ContainsFunc(n.Lhs, func(e ast.Expr) bool {
			f, ok := e.(*ast.SelectorExpr)
			return ok && f.Sel.Name == "Fix"
		}) {
			return n.Rhs
		}
	}
	return nil
}

// packageTexts returns the string literals of all packages but the command line's.
func packageTexts(t *testing.T) (all []string) {
	t.Helper()
	inPackages(t, func(n ast.Node) {
		if lit, ok := n.(*ast.BasicLit); ok {
			all = append(all, texts(lit)...)
		}
	})
	return all
}

// texts returns the string literals of an expression.
func texts(e ast.Expr) (all []string) {
	ast.Inspect(e, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			text, _ := strconv.Unquote(lit.Value)
			all = append(all, text)
		}
		return true
	})
	return all
}

// inPackages calls f for each node of the sources of all packages but the command line's.
func inPackages(t *testing.T, see func(ast.Node)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("../.."), ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (file == "internal/cli" || file == "docs" || d.Name() == "testdata" ||
			d.Name() != "." && d.Name()[0] == '.'):
			return fs.SkipDir
		case !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), "../../"+file, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			see(n)
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestHintsNameTheirCommands(t *testing.T) {
	for hint, want := range map[string]string{
		"start the server":       "start the server: postern run",
		"renew certificate 5f3a": "renew certificate 5f3a: postern ca renew 5f3a",
		"confirm the configuration of sshd, or put back /var/x/1": "--roll-back /var/x/1",
		"audit it by its configuration /etc/x":                    "/etc/x: postern ssh check --config /etc/x",
		"take its permissions from others: chmod 700 /var/x":      "take its permissions from others: chmod 700 /var/x",
	} {
		if got := inCommands(hint); !strings.HasSuffix(got, want) {
			t.Errorf("%q becomes %q", hint, got)
		}
	}
}

func TestKindsAreKnown(t *testing.T) {
	for kind, want := range map[string]string{
		"cert": "", "cert.issued": "", "cert.isued": "did you mean: cert.issued", "xyzzy": "man 7", "": "man 7",
	} {
		t.Run(kind, func(t *testing.T) {
			err := new(logOptions).kind(kind)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(hintOf(err), want) {
				t.Errorf("%v, hint %q", err, hintOf(err))
			}
		})
	}
}
