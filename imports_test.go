package postern_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/postern-project/postern"

// may lists what a room may import of the house, beyond the root package and
// the rooms inside it. Everything else is forbidden: rooms do not know each
// other; store, front and cmd fit them together.
var may = map[string][]string{
	"store":       {"*"},
	"front":       {"*"},
	"cmd":         {"*"},
	"bench":       {"*"},
	"posterntest": {},
	"acme":        {"reach"},
	"portal":      {"reach"},
}

// only names imports that belong to one room alone, and why.
var only = []struct{ prefix, room, why string }{
	{"github.com/caddyserver/caddy/", "front", "front is the one room that knows Caddy"},
	{"github.com/cilium/ebpf", "trace", "a process that serves the network never loads BPF"},
	{"modernc.org/sqlite", "store", "SQL is the store's"},
	{"github.com/jackc/pgx/", "store", "SQL is the store's"},
	{"github.com/miekg/pkcs11", "ca", "C is called by the process that ca starts for it"},
}

func TestRoomsImportOneWay(t *testing.T) {
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "tools" || strings.HasPrefix(d.Name(), ".") && file != ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		room := roomOf(path.Dir(file))
		test := strings.HasSuffix(file, "_test.go")
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(room, imp, test); why != "" {
				t.Errorf("%s imports %s: %s", file, imp, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// roomOf returns the room that a directory belongs to: its first element, below
// internal where it lies there, or "" for the root package.
func roomOf(dir string) string {
	if dir == "." {
		return ""
	}
	room, _, _ := strings.Cut(strings.TrimPrefix(dir, "internal/"), "/")
	return room
}

func forbidden(room, imp string, test bool) string {
	if rest, ok := strings.CutPrefix(imp, module); ok {
		target := roomOf(strings.TrimPrefix(rest, "/"))
		switch {
		case rest == "" || target == room:
			return ""
		case target == "posterntest" && (test || room == "bench"):
			return ""
		case target == "cmd":
			return "nothing imports the command line"
		}
		// A room's tests may run over the real store.
		for _, ok := range append(may[room], map[bool]string{true: "store"}[test && room != "posterntest"]) {
			if ok == "*" || ok == target {
				return ""
			}
		}
		return "rooms do not import each other"
	}
	for _, o := range only {
		if strings.HasPrefix(imp, o.prefix) && room != o.room && !test && room != "posterntest" && room != "bench" {
			return o.why
		}
	}
	first, _, _ := strings.Cut(imp, "/")
	if room == "" && !test && strings.Contains(first, ".") {
		return "the root package imports the standard library only"
	}
	return ""
}

// TestImportRulesCanFail holds the checker itself against imports that it must
// refuse.
func TestImportRulesCanFail(t *testing.T) {
	for _, c := range []struct {
		room, imp string
		test      bool
	}{
		{"otp", module + "/store", false},
		{"otp", module + "/ca", true},
		{"gate", "github.com/caddyserver/caddy/v2", false},
		{"store", module + "/cmd/postern", false},
		{"", "github.com/spf13/cobra", false},
		{"portal", module + "/posterntest", false},
	} {
		if forbidden(c.room, c.imp, c.test) == "" {
			t.Errorf("room %q may import %s (test %v)", c.room, c.imp, c.test)
		}
	}
}
