package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// `file:function`, by which ARCHITECTURE.md and CONTRIBUTING.md name places in the code.
var codePlace = regexp.MustCompile(`^([\w./-]+\.(?:go|c)):([\w.]+)$`)

// TestNamedPlacesExist holds the places in the code that the pages name against
// those that there are.
func TestNamedPlacesExist(t *testing.T) {
	for page, atLeast := range map[string]int{"../ARCHITECTURE.md": 50, "../CONTRIBUTING.md": 10} {
		seen := 0
		for _, m := range codeSpan.FindAllStringSubmatch(posterntest.Read(t, page), -1) {
			place := codePlace.FindStringSubmatch(m[1])
			if place == nil {
				continue
			}
			seen++
			if !declares(t, filepath.Join("..", place[1]), place[2]) {
				t.Errorf("%s: %s does not declare %s", page, place[1], place[2])
			}
		}
		if seen < atLeast {
			t.Errorf("%s names %d places", page, seen)
		}
	}
}

// declares reports whether a file declares a function, a method as Type.Method, a
// type, a variable or a constant.
func declares(t *testing.T, file, name string) bool {
	t.Helper()
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
		return false
	}
	if filepath.Ext(file) == ".c" {
		return regexp.MustCompile(`(?m)^[a-z].*\b` + name + `\(.*[^;]$`).MatchString(posterntest.Read(t, file))
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	s := source{names: map[string]map[string]bool{}}
	s.add(file, f)
	return s.names[strings.TrimPrefix(filepath.Dir(file), "../")][name]
}

// TestNamedPlacesCanBeMissed tries names that no file declares.
func TestNamedPlacesCanBeMissed(t *testing.T) {
	for _, c := range []struct {
		file, name string
		there      bool
	}{
		{"../gate/rule.go", "CompileRule", true},
		{"../gate/rule.go", "Rule.holds", true},
		{"../gate/rule.go", "holds", false},
		{"../gate/rule.go", "CompilePaths", false}, // in another file
		{"../pam/pam_postern.c", "pam_sm_authenticate", true},
		{"../pam/pam_postern.c", "pam_get_item", false}, // called there
	} {
		if declares(t, c.file, c.name) != c.there {
			t.Errorf("%s declares %s: not %v", c.file, c.name, c.there)
		}
	}
}

var packageRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// TestEveryPackageIsDescribed compares the table of packages with the folders that
// hold Go files.
func TestEveryPackageIsDescribed(t *testing.T) {
	table, _, _ := strings.Cut(posterntest.Read(t, "../ARCHITECTURE.md"), "\n## ")
	described := map[string]bool{}
	for _, m := range packageRow.FindAllStringSubmatch(table, -1) {
		described[m[1]] = true
	}
	for dir := range packages(t) {
		if !described[dir] {
			t.Errorf("ARCHITECTURE.md does not describe %s", dir)
		}
		delete(described, dir)
	}
	for dir := range described {
		t.Errorf("ARCHITECTURE.md describes %s, which has no Go files", dir)
	}
}

// TestEveryPackageSaysWhatItIs looks for each package's comment.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	comment := regexp.MustCompile(`(?m)^(// (Package|Command) \w+|// Gen) .*\n(//.*\n)*package `)
	for dir := range packages(t) {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(f string) bool { return comment.MatchString(posterntest.Read(t, f)) }) {
			t.Errorf("no file of %s says what the package is", dir)
		}
	}
}

// packages returns the folders with Go files that are no tests, those of other
// modules left out, except the one that a replace line of go.mod names.
func packages(t *testing.T) map[string]bool {
	t.Helper()
	dirs := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name := d.Name(); name == "testdata" || name == "node_modules" || name == "tools" ||
				name != ".." && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") && !ignored(t, path):
			dir, err := filepath.Rel("..", filepath.Dir(path))
			dirs[dir] = true
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// ignored reports whether a file is built only by name.
func ignored(t *testing.T, path string) bool {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return contains(f.Comments, "go:build ignore")
}

func contains(groups []*ast.CommentGroup, text string) bool {
	for _, g := range groups {
		for _, c := range g.List {
			if strings.Contains(c.Text, text) {
				return true
			}
		}
	}
	return false
}
