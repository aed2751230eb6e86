package otp

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// TestSecretsAreComparedInConstantTime holds every comparison in the package
// against a list of what is secret or derived from it: a comparison whose time
// depends on the data (==, bytes.Equal and the like) must not touch these.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	found, err := dataDependent(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// secretNames are the last words of expressions that hold secrets: keys, what a
// code decrypts to, signatures, and codes that are right.
var secretNames = map[string]bool{
	"PrivateID": true, "privateID": true, "Key": true, "Secret": true, "Block": true,
	"mac": true, "sum": true, "hash": true, "crc": true, "sign": true, "code": true, "Code": true, "Modhex": true,
}

// comparers are functions that stop at the first difference.
var comparers = map[string]bool{
	"Equal": true, "Compare": true, "EqualFold": true, "DeepEqual": true,
	"HasPrefix": true, "HasSuffix": true, "Contains": true,
}

func dataDependent(dir fs.FS) (found []string, err error) {
	files, err := fs.Glob(dir, "*.go")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, 0)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if bad(n) {
				found = append(found, set.Position(n.Pos()).String()+": a comparison of secrets that may stop early")
			}
			return true
		})
	}
	return found, nil
}

func bad(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		if n.Op != token.EQL && n.Op != token.NEQ {
			return false
		}
		// Whether there is one at all is no secret.
		return !isNothing(n.X) && !isNothing(n.Y) && (secret(n.X) || secret(n.Y))
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		if !ok || !comparers[f.Sel.Name] {
			return false
		}
		if pkg, ok := f.X.(*ast.Ident); ok && (pkg.Name == "hmac" || pkg.Name == "subtle") {
			return false
		}
		for _, arg := range n.Args {
			if secret(arg) {
				return true
			}
		}
	}
	return false
}

func isNothing(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "nil"
	case *ast.BasicLit:
		return e.Value == `""`
	}
	return false
}

// secret reports whether an expression's value is a secret by its name.
func secret(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return secretNames[e.Name]
	case *ast.SelectorExpr:
		return secretNames[e.Sel.Name]
	case *ast.CallExpr:
		if f, ok := e.Fun.(*ast.SelectorExpr); ok {
			return secretNames[f.Sel.Name]
		}
		// A conversion; but how long a secret is, is none.
		f, ok := e.Fun.(*ast.Ident)
		return ok && f.Name != "len" && len(e.Args) == 1 && secret(e.Args[0])
	case *ast.SliceExpr:
		return secret(e.X)
	case *ast.IndexExpr:
		return secret(e.X)
	case *ast.StarExpr:
		return secret(e.X)
	case *ast.ParenExpr:
		return secret(e.X)
	}
	return false
}

func TestTheSearchForComparisonsCanFind(t *testing.T) {
	for _, line := range []string{
		"a.PrivateID == b", "string(mac) != x", "bytes.Equal(k.Key[:], x)", "o.code(at) == typed",
		"strings.EqualFold(code, x)", "*k.Secret == *s", "crc == crcResidue",
	} {
		e, err := parser.ParseExpr(line)
		if err != nil {
			t.Fatal(err)
		}
		if !bad(e) {
			t.Errorf("%s passes", line)
		}
	}
	for _, line := range []string{"k.Secret == nil", "len(key) == 16", "hmac.Equal(mac, x)", "a.Status == b"} {
		if e, err := parser.ParseExpr(line); err != nil || bad(e) {
			t.Errorf("%s is found, %v", line, err)
		}
	}
}
