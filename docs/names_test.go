package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// source is what the project's Go files declare.
type source struct {
	tests map[string]bool            // functions of test files
	names map[string]map[string]bool // by package directory: functions, Type.Method, types, constants, variables
}

// declared reads every Go file of the project.
func declared(t testing.TB) source {
	t.Helper()
	s := source{tests: map[string]bool{}, names: map[string]map[string]bool{}}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "testdata") {
			if d != nil && d.IsDir() && err == nil {
				return filepath.SkipDir
			}
			return err
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s.add(path, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s source) add(path string, f *ast.File) {
	dir := strings.TrimPrefix(filepath.Dir(path), "../")
	if s.names[dir] == nil {
		s.names[dir] = map[string]bool{}
	}
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv == nil && strings.HasSuffix(path, "_test.go") {
				s.tests[name] = true
			}
			if d.Recv != nil && len(d.Recv.List) == 1 {
				name = receiver(d.Recv.List[0].Type) + "." + name
			}
			s.names[dir][name] = true
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch x := spec.(type) {
				case *ast.TypeSpec:
					s.names[dir][x.Name.Name] = true
				case *ast.ValueSpec:
					for _, n := range x.Names {
						s.names[dir][n.Name] = true
					}
				}
			}
		}
	}
}

func receiver(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return ""
}

// The project's own pages, which name files, functions and tests.
var naming = []string{"../SECURITY.md", "../ARCHITECTURE.md", "../CONTRIBUTING.md", "../README.md"}

var testName = regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)

// TestNamedTestsExist holds the tests that the pages name against those that
// there are.
func TestNamedTestsExist(t *testing.T) {
	src, seen := declared(t), 0
	for _, page := range naming {
		for _, m := range codeSpan.FindAllStringSubmatch(posterntest.Read(t, page), -1) {
			if !testName.MatchString(m[1]) {
				continue
			}
			if seen++; !src.tests[m[1]] {
				t.Errorf("%s: there is no test %s", page, m[1])
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d tests are named", seen)
	}
}

// A file or folder of the project: a word with a slash and no space, below one of
// its folders.
var projectPath = regexp.MustCompile(
	`^(front|gate|otp|timeline|internal|cmd|pam|bench|packaging|man|docs|tools)(/[\w.@*-]+)+/?$`)

// TestNamedFilesExist holds the files and folders that the pages name against
// those that there are.
func TestNamedFilesExist(t *testing.T) {
	seen := 0
	for _, page := range naming {
		for _, m := range codeSpan.FindAllStringSubmatch(posterntest.Read(t, page), -1) {
			if !projectPath.MatchString(m[1]) {
				continue
			}
			seen++
			if found, err := filepath.Glob("../" + m[1]); err != nil || len(found) == 0 {
				t.Errorf("%s: there is no %s", page, m[1])
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d files are named", seen)
	}
}

// An image as Markdown or HTML names it.
var imageName = regexp.MustCompile(`(?:\]\(|src="|srcset=")([^)"\s]+\.(?:png|svg))`)

// TestEveryImageIsShown holds the images that the pages name against those that
// there are, and bounds their sizes.
func TestEveryImageIsShown(t *testing.T) {
	shown := map[string]bool{}
	for _, page := range pages(t) {
		for _, m := range imageName.FindAllStringSubmatch(posterntest.Read(t, page), -1) {
			shown[strings.TrimPrefix(filepath.Join(filepath.Dir(page), m[1]), "../docs/")] = true
		}
	}
	there, err := filepath.Glob("images/*")
	if err != nil || len(there) < 50 {
		t.Fatalf("only %d images: %v", len(there), err)
	}
	for _, path := range there {
		if !shown[path] {
			t.Errorf("no page shows %s", path)
		}
		delete(shown, path)
		if info, err := os.Stat(path); err != nil || info.Size() > 100<<10 {
			t.Errorf("%s is larger than 100 KiB, or cannot be read: %v", path, err)
		}
	}
	for path := range shown {
		t.Errorf("there is no %s", path)
	}
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)

// TestLinksLeadSomewhere checks the links between the pages.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(posterntest.Read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
